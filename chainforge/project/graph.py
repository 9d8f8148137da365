"""The steps that dvc.yaml declares, and which sections of params.yaml each of them reads.

dvc.yaml is the only place that says so: a step loads its settings from the sections declared there, so
it cannot read a setting that DVC does not watch.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from chainforge.config.loading import load_settings, read_params
from chainforge.errors import ChainForgeError, unknown
from chainforge.project.stanzas import LOCK as LOCK
from chainforge.project.stanzas import Stanza, check_stanza, read_stanzas

GRAPH = Path("dvc.yaml")
UNWATCHED = {"runtime", "collector"}  # change no result
# not settings of one verb
SHARED = {
    "run",
    "profile",
    "untouched",
    "checkpoints",
    "benches",
    "evaluate.reward",
    "evaluate.split",
    "gates",
}
MAY_BE_EMPTY = {"params.yaml: untouched", "params.yaml: gates"}  # then there are no such steps
COMMAND = re.compile(r"python -m stages\.(\w+) ")
VARIABLE = re.compile(r"\$\{([\w.]+)\}")
ITEM = re.compile(r"\$\{item\.(\w+)\}")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")

S = TypeVar("S", bound=BaseModel)


class Output(NamedTuple):
    """A file or folder that a step writes, and whether DVC keeps it in its cache."""

    path: str
    cached: bool


@dataclass(frozen=True, slots=True)
class GraphStep:
    """One step: `sections` of params.yaml from general to special, its place in plugins.lock.json, and the
    files and folders that it reads and writes, as dvc.yaml has them."""

    name: str
    verb: str
    sections: tuple[str, ...]
    lock_key: str
    deps: tuple[str, ...]
    outs: tuple[Output, ...] = ()


def read_graph(path: Path = GRAPH) -> dict[str, GraphStep]:
    """Every step of dvc.yaml by name, foreach and matrix expanded, in the order of the file."""
    expanded = (item for name, stanza in read_stanzas(path).items() for item in _expand(name, stanza, path))
    return {name: step for name, stanza in expanded if (step := _step(name, stanza))}


def settings_of(kind: type[S], step: str) -> S:
    """The settings of a step, from the sections that dvc.yaml declares for it."""
    return load_settings(kind, *step_of(step).sections)


def step_of(name: str) -> GraphStep:
    """The step of that name. Raises ChainForgeError for one that dvc.yaml does not have."""
    graph = read_graph()
    if name not in graph:
        raise unknown("step in dvc.yaml", name, graph)
    return graph[name]


def dependencies(step: GraphStep) -> list[Path]:
    """The files and folders that a step reads, with the settings that name them filled in."""
    return [fill(dep) for dep in step.deps]


def outputs(step: GraphStep) -> list[Path]:
    """The files and folders that a step writes, with the settings that name them filled in."""
    return [fill(out.path) for out in step.outs]


def fill(path: str) -> Path:
    """A path of dvc.yaml with the settings that it names."""
    return Path(VARIABLE.sub(lambda m: str(param(m[1])), path))


def param(dotted: str) -> Any:
    """The value, or whole section, of params.yaml at this path."""
    node: Any = read_params()
    for key in dotted.split("."):
        if not isinstance(node, Mapping) or key not in node:
            raise ChainForgeError(f"params.yaml has no {dotted}, which dvc.yaml asks for", "add it")
        node = node[key]
    return node


def _expand(name: str, stanza: Stanza, path: Path) -> Iterator[tuple[str, Stanza]]:
    if stanza.foreach is not None:
        where, sections = _sections(name, stanza.foreach)
        for key, value in sections.items():
            item = {f"item.{k}": v for k, v in value.items() if isinstance(v, str)}
            body = _fill(stanza.do, {"key": key} | item)
            if left := ITEM.search(repr(body)):
                raise ChainForgeError(
                    f"{where}.{key}.{left[1]} is {value.get(left[1])!r:.100}",
                    f"set it to a path: dvc.yaml asks for it in every step of {name}",
                )
            yield f"{name}@{key}", check_stanza(name, body, path)
    elif stanza.matrix is not None:
        axes = {axis: _names(axis, values) for axis, values in stanza.matrix.items()}
        for combination in itertools.product(*axes.values()):
            cell = {f"item.{axis}": value for axis, value in zip(axes, combination, strict=True)}
            body = _fill(stanza.model_dump(), cell)
            yield f"{name}@{'-'.join(combination)}", check_stanza(name, body, path)
    else:
        yield name, stanza


def _sections(step: str, declared: str | Mapping[str, Any]) -> tuple[str, Mapping[str, Mapping[str, Any]]]:
    """(where it stands, what a `foreach` goes over: a section per name)."""
    where, node = _resolve(f"foreach of {step}", declared)
    if not isinstance(node, Mapping) or not (node or where in MAY_BE_EMPTY):
        raise ChainForgeError(f"{where} is {node!r:.100}", "write one section per name there")
    for name, value in node.items():
        _check_name(where, name)
        if not isinstance(value, Mapping):
            raise ChainForgeError(
                f"{where}.{name} must be a section, found {value!r:.100}", "indent its settings below"
            )
    return where, node


def _names(axis: str, declared: str | list[str]) -> list[str]:
    """What an axis of a `matrix` has."""
    where, node = _resolve(f"axis {axis}", declared)
    if not isinstance(node, Mapping | list) or not (node or where in MAY_BE_EMPTY):
        raise ChainForgeError(f"{where} is {node!r:.100}", "list at least one name there")
    names = list(node)
    for name in names:
        _check_name(where, name)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ChainForgeError(f"{where} has {twice} twice", "name it once")
    return names


def _resolve(what: str, value: Any) -> tuple[str, Any]:
    """(where it stands, a literal or the setting that `${dotted.path}` names)."""
    if not isinstance(value, str):
        return f"dvc.yaml: {what}", value
    variable = VARIABLE.fullmatch(value)
    if not variable:
        raise ChainForgeError(f"dvc.yaml: {what} is {value!r:.100}", "name a setting: ${students}")
    return f"params.yaml: {variable[1]}", param(variable[1])


def _check_name(where: str, name: Any) -> None:
    """Refuse what DVC would fill into a command that a shell reads, and into the name of a folder."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ChainForgeError(
            f"{where} has the name {name!r:.100}",
            "a name has letters, digits, _ and - only, does not start with -, and is at most 64 long",
        )


def _fill(node: Any, values: Mapping[str, str]) -> Any:
    if isinstance(node, str):
        return VARIABLE.sub(lambda m: values.get(m[1], m[0]), node)
    if isinstance(node, Mapping):
        return {_fill(key, values): _fill(value, values) for key, value in node.items()}
    return [_fill(item, values) for item in node] if isinstance(node, list) else node


def _step(name: str, stanza: Stanza) -> GraphStep | None:
    command = COMMAND.match(f"{stanza.cmd} ") if isinstance(stanza.cmd, str) else None
    locked = stanza.lock_keys
    if not command or not locked:
        return None
    sections = tuple(entry for entry in stanza.params if isinstance(entry, str) and entry not in SHARED)
    outs = tuple(Output(*written) for written in stanza.written)
    return GraphStep(name, command[1], sections, locked[0], tuple(stanza.deps), outs)
