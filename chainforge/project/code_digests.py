"""Digests of the code that a step depends on, its own and that of plugins, without comments and docstrings.

Nothing here imports torch, or the code that it reads. To read all of that takes a second, each time; so what
was found in a file is remembered in .dvc/tmp, under a digest of its bytes.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Set
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType

from chainforge.bundle import is_checkout
from chainforge.errors import ChainForgeError, describe
from chainforge.original import original_root
from chainforge.outputs import write_json

PACKAGE = "chainforge"


def closure(root: Path, entry: Path, known: Set[Path] = frozenset()) -> list[Path]:
    """Every module of ChainForge that the file imports, directly or not, with the templates beside them,
    sorted, then the file; without those in `known`, whose own imports must be in it too.

    ChainForge is what lies in the project, or else what is installed: where `python` finds it, too.
    """
    home = root if is_checkout(root) else Path(__file__).resolve().parents[2]
    waiting = [entry] if entry.is_file() else []
    found, seen, named = {*waiting}, {entry, *known}, set[str]()
    while waiting:
        imports, _ = _analyse(waiting.pop().read_bytes())
        new = {home / name for name in imports if name not in named} - seen
        named.update(imports)  # most names come again and again, and a path takes long to make
        seen |= new
        waiting += (files := [path for path in new if path.is_file()])
        found.update(files)
    templates = {file for folder in {path.parent for path in found} for file in folder.glob("*.j2")}
    modules = (found | templates) - known
    return [*sorted(modules - {entry}), *({entry} & modules)]  # the same order wherever the two lie


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a module imports, each `from a import b` also as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files(name: str) -> Iterator[str]:
    """Where a dotted name of this project can be, and the packages around it."""
    parts = name.split(".")
    if parts[0] == PACKAGE:
        for depth in range(1, len(parts) + 1):
            base = "/".join(parts[:depth])
            yield from (f"{base}.py", f"{base}/__init__.py")


def digest_code(files: Iterable[Path]) -> str:
    """A digest of what the files do: their syntax trees without comments and docstrings."""
    hasher = hashlib.sha256()
    for file in files:
        if file.suffix == ".py":
            _, digest = _analyse(file.read_bytes())
            hasher.update(file.name.encode() + b"\0" + digest.encode() + b"\0")
        else:
            hasher.update(file.name.encode() + b"\0" + file.read_bytes())
    return hasher.hexdigest()[:16]


@cache
def _analyse(code: bytes) -> tuple[tuple[str, ...], str]:
    """The files that a module may import, and a digest of its code without prose; remembered, or read now."""
    name = hashlib.sha256(_reader() + code).hexdigest()
    memory = original_root() / ".dvc/tmp/chainforge-code" / f"{name}.json"
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
        return tuple(map(str, known["imports"])), str(known["digest"])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    imports, digest = _read(code)
    with suppress(OSError):  # a place that cannot be written costs time alone
        if memory.parents[1].is_dir():
            write_json(memory, {"imports": imports, "digest": digest})
    return imports, digest


@cache
def _reader() -> bytes:
    """This file: another version of it may find other things."""
    return Path(__file__).read_bytes()


def _read(code: bytes) -> tuple[tuple[str, ...], str]:
    tree = ast.parse(code)  # bytes, because a file may declare its encoding
    files = {file: None for name in imports_of(tree) for file in _files(name)}
    return tuple(files), hashlib.sha256(_canonical(_without_prose(tree)).encode()).hexdigest()


def _canonical(tree: ast.AST) -> str:
    """A syntax tree as text, the same on every Python that can read it.

    Without empty fields, of which each version adds some. `ast.dump` and `ast.unparse` differ between them.
    No recursion: a sum of a thousand terms is a tree as deep.
    """
    written: list[str] = []
    waiting: list[object] = [tree]  # nodes, lists and values to come, and _Text to be written as it is
    while waiting:
        match waiting.pop():
            case _Text() as text:
                written.append(text)
            case list() as items:
                waiting += reversed(_join("[", [[item] for item in items], "]"))
            case ast.AST() as node:
                fields = [(n, v) for n, v in ast.iter_fields(node) if v is not None and v != []]
                parts: list[list[object]] = [[_Text(f"{name}="), value] for name, value in fields]
                waiting += reversed(_join(f"{type(node).__name__}(", parts, ")"))
            case value:
                written.append(repr(value))
    return "".join(written)


class _Text(str):
    """Written already."""

    __slots__ = ()


def _join(start: str, parts: list[list[object]], end: str) -> list[object]:
    told: list[object] = [_Text(start)]
    for number, part in enumerate(parts):
        told += [_Text(",")] * (number > 0) + part
    return [*told, _Text(end)]


def _without_prose(tree: ast.AST) -> ast.AST:
    """The tree less its docstrings and other texts that stand alone."""
    for node in ast.walk(tree):
        for _, value in ast.iter_fields(node):
            if isinstance(value, list):
                value[:] = [one for one in value if not _is_prose(one)]
    return tree


def _is_prose(node: object) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def digest_module(module: ModuleType) -> str:
    """Of a plugin file, or of every module of its package, and of what it imports beyond the public API."""
    own = package_files(module) or [Path(str(module.__file__))]
    try:
        return _digest_files(own)
    except (RecursionError, MemoryError, SyntaxError) as error:
        raise ChainForgeError(
            f"{own[0]}: its code cannot be read: {describe(error)}",
            "an expression is too deep: write it in several lines, or read its data from a file",
        ) from error


def _digest_files(own: list[Path]) -> str:
    root = Path(__file__).resolve().parents[2]
    beyond = {used for path in own for used in closure(root, path, _public_api(root))}
    return digest_code([*own, *sorted(beyond - set(own))])


def package_files(module: ModuleType) -> list[Path]:
    """Every module of the package at the top; none for a single file."""
    top = sys.modules[module.__name__.partition(".")[0]]
    file = Path(str(top.__file__))
    return sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else []


@cache
def _public_api(root: Path) -> frozenset[Path]:
    return frozenset(closure(root, root / PACKAGE / "__init__.py"))
