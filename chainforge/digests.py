"""Digests of what a step depends on: code without comments and docstrings, plugins, files.

Nothing here imports torch, or the code that it reads.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

LARGE = 2**26  # bytes; of larger input files only size, head and tail are read
PACKAGE = "chainforge"


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


def digest_module(module: ModuleType) -> str:
    """Of a module's file, or of every module of a package, and of what it imports beyond the public API."""
    file = Path(str(module.__file__))
    own = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    root = Path(__file__).resolve().parents[1]
    beyond = {used for path in own for used in closure(root, path)} - _public_api(root)
    return digest_code([*own, *sorted(beyond - set(own))])


@cache
def _public_api(root: Path) -> frozenset[Path]:
    return frozenset(closure(root, root / PACKAGE / "__init__.py"))


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


def digest_whole(path: Path) -> str:
    """Of every byte of a file, or of all files below a folder; a missing one is left to its reader."""
    if path.is_dir():
        parts = [(str(f.relative_to(path)), digest_whole(f)) for f in sorted(path.rglob("*")) if f.is_file()]
        return hashlib.sha256(repr(parts).encode()).hexdigest()
    if not path.is_file():
        return "missing"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
