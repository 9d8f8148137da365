"""plugins.lock.json: per step, what its code, its plugins and its input files are, as digests.

`dvc repro` watches a step's own subtree only, so that an edit re-runs exactly the steps that use it.
Comments and docstrings do not count. Nothing here imports torch.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from chainforge.config.loading import Choice, Role, load_settings, read_params
from chainforge.config.verbs import VERBS
from chainforge.errors import unknown
from chainforge.graph import SHARED, GraphStep, read_graph
from chainforge.plugins import Entry, Plugins, plugin_settings

LARGE = 2**26  # bytes; of larger input files only size, head and tail are read
PACKAGE = "chainforge"


def make_lock(plugins: Plugins, root: Path = Path()) -> dict[str, Any]:
    """The whole lock. Validates every step's settings on the way, so that a mistake stops before any work."""
    graph = read_graph()
    check_sections(graph)
    lock: dict[str, Any] = {}
    code: dict[str, str] = {}
    for step in graph.values():
        if step.verb not in VERBS:
            raise unknown("verb", step.verb, VERBS)
        if step.verb not in code:
            code[step.verb] = digest_code(closure(root, root / "stages" / f"{step.verb}.py"))
        *path, leaf = step.lock_key.split(".")
        node = lock
        for key in path:
            node = node.setdefault(key, {})
        node[leaf] = {"code": code[step.verb], **_selected(step, plugins)}
    return lock


def check_sections(graph: Mapping[str, GraphStep]) -> None:
    """Raise ChainForgeError for a section that no step reads, or a comparison of unknown checkpoints."""
    params = read_params()
    read = {section.split(".")[0] for step in graph.values() for section in step.sections}
    for section in params:
        if section not in read | SHARED | {"runtime"}:
            raise unknown("section of params.yaml", section, read | SHARED | {"runtime"})
    parents = params.get("report", {}).get("parents") or {}
    for checkpoint in (*parents, *parents.values()):
        if checkpoint not in params["checkpoints"]:
            raise unknown("checkpoint for report.parents", checkpoint, params["checkpoints"])


def _selected(step: GraphStep, plugins: Plugins) -> dict[str, Any]:
    settings = load_settings(VERBS[step.verb], *step.sections)
    found: dict[str, Any] = {}
    files: dict[str, str] = {}
    for role, choice in selections(settings):
        entry = plugins.pick(role, choice.plugin)
        found[f"{role}:{entry.name}"] = {"source": entry.source, "digest": digest_plugin(entry)}
        if role != "rewards":
            arguments = plugin_settings(entry, choice.settings)
            files |= {str(path): digest_path(Path(path)) for path in arguments.values() if is_input(path)}
    return {"plugins": found} | ({"files": files} if files else {})


def is_input(value: Any) -> bool:
    """A file or folder that comes from outside; what the graph itself makes, DVC watches already."""
    path = Path(value) if isinstance(value, str) and Path(value).is_dir() else value
    return isinstance(path, Path) and path.parts[:1] not in {("checkpoints",), ("data",)}


def selections(settings: BaseModel) -> Iterator[tuple[str, Choice]]:
    """(role, choice) for every plugin that a step's settings name."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        role = next((str(mark) for mark in field.metadata if isinstance(mark, Role)), None)
        if isinstance(value, Choice):
            yield role or _role_in_union(field.annotation), value
        elif name == "rewards":
            yield from (("rewards", Choice(plugin=reward)) for reward in value)
        elif name == "reward":
            yield "rewards", Choice(plugin=value)
        elif isinstance(value, BaseModel):
            yield from selections(value)


def _role_in_union(annotation: Any) -> str:
    marks = (mark for part in annotation.__args__ for mark in getattr(part, "__metadata__", ()))
    return next(str(mark) for mark in marks if isinstance(mark, Role))


def closure(root: Path, entry: Path) -> list[Path]:
    """The file and every module of this project that it imports, directly or not, with the templates beside
    them, sorted."""
    found: set[Path] = set()
    waiting = [entry]
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        imports, _ = _analysed(path.read_text(encoding="utf-8"))
        waiting += [file for name in imports for file in _files(root, name)]
    templates = {file for folder in {path.parent for path in found} for file in folder.glob("*.j2")}
    return sorted(found | templates)


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a module imports, each `from a import b` also as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files(root: Path, name: str) -> Iterator[Path]:
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return
    for depth in range(1, len(parts) + 1):
        base = root.joinpath(*parts[:depth])
        yield from (base.with_suffix(".py"), base / "__init__.py")


def digest_code(files: Iterable[Path]) -> str:
    """A digest of what the files do: their syntax trees without comments and docstrings."""
    hasher = hashlib.sha256()
    for file in files:
        if file.suffix == ".py":
            _, code = _analysed(file.read_text(encoding="utf-8"))
            hasher.update(file.name.encode() + b"\0" + code.encode() + b"\0")
        else:
            hasher.update(file.name.encode() + b"\0" + file.read_bytes())
    return hasher.hexdigest()[:16]


@cache
def _analysed(text: str) -> tuple[tuple[str, ...], str]:
    """What a module imports, and its code without prose. Most modules belong to several steps."""
    tree = ast.parse(text)
    return tuple(imported(tree)), ast.unparse(_WithoutProse().visit(tree))


class _WithoutProse(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_prose = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_prose else node


def digest_plugin(entry: Entry) -> str:
    """Of the plugin's file, or of every module of its package."""
    file = Path(str(entry.module.__file__))
    return digest_code(sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file])


def digest_path(path: Path) -> str:
    """Of an input file or a model folder; a missing one is left to the step that needs it."""
    if path.is_dir():
        parts: Mapping[str, str] = {f.name: digest_path(f) for f in sorted(path.iterdir()) if f.is_file()}
        return hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest()[:16]
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    with path.open("rb") as file:
        content = file.read(LARGE)
        if size > LARGE:
            file.seek(max(LARGE, size - 2**20))
            content += file.read()
    return hashlib.sha256(f"{size}:".encode() + content).hexdigest()[:16]
