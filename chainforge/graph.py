"""The steps that dvc.yaml declares, and which sections of params.yaml each of them reads.

dvc.yaml is the only place that says so: a step loads its settings from the sections declared there, so
it cannot read a setting that DVC does not watch.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from ruamel.yaml import YAML

from chainforge.config.loading import load_settings, read_params
from chainforge.errors import ChainForgeError, unknown

GRAPH = Path("dvc.yaml")
LOCK = "plugins.lock.json"
UNWATCHED = {"runtime", "collector"}  # change no result
SHARED = {"run", "profile", "checkpoints", "benches", "evaluate.reward"}  # not settings of one verb
COMMAND = re.compile(r"python -m stages\.(\w+) ")
VARIABLE = re.compile(r"\$\{([\w.]+)\}")

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class GraphStep:
    """One step: `sections` of params.yaml from general to special, its place in plugins.lock.json, and the
    files and folders that it reads, as dvc.yaml has them."""

    name: str
    verb: str
    sections: tuple[str, ...]
    lock_key: str
    deps: tuple[str, ...]


def read_graph(path: Path = GRAPH) -> dict[str, GraphStep]:
    """Every step of dvc.yaml by name, foreach and matrix expanded, in the order of the file."""
    if not path.is_file():
        raise ChainForgeError(f"there is no {path} in {Path.cwd()}", "run this in the project's folder")
    stages = _stanzas(path.read_text(encoding="utf-8"))
    expanded = (item for name, stanza in stages.items() for item in _expand(name, stanza))
    return {name: step for name, stanza in expanded if (step := _step(name, stanza))}


@cache
def _stanzas(text: str) -> Mapping[str, Any]:
    stages: Mapping[str, Any] = YAML(typ="safe", pure=True).load(text)["stages"]
    return stages


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
    return [Path(VARIABLE.sub(lambda m: str(param(m[1])), dep)) for dep in step.deps]


def _expand(name: str, stanza: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if "foreach" in stanza:
        for key, value in _values(stanza["foreach"]).items():
            item = {f"item.{k}": v for k, v in value.items() if isinstance(v, str)}
            yield f"{name}@{key}", _fill(stanza["do"], {"key": str(key)} | item)
    elif "matrix" in stanza:
        axes = {axis: list(_values(values)) for axis, values in stanza["matrix"].items()}
        for combination in itertools.product(*axes.values()):
            cell = {f"item.{axis}": str(value) for axis, value in zip(axes, combination, strict=True)}
            yield f"{name}@{'-'.join(map(str, combination))}", _fill(stanza, cell)
    else:
        yield name, stanza


def _values(declared: Any) -> Any:
    """A literal list or mapping, or the one in params.yaml that `${dotted.path}` names."""
    if not isinstance(declared, str):
        return declared
    node = param(declared[2:-1])
    if not isinstance(node, Mapping | list) or not node:
        raise ChainForgeError(f"params.yaml: {declared[2:-1]} is {node!r}", "list at least one name there")
    return node


def param(dotted: str) -> Any:
    """The value, or whole section, of params.yaml at this path."""
    node: Any = read_params()
    for key in dotted.split("."):
        if not isinstance(node, Mapping) or key not in node:
            raise ChainForgeError(f"params.yaml has no {dotted}, which dvc.yaml asks for", "add it")
        node = node[key]
    return node


def _fill(node: Any, values: Mapping[str, str]) -> Any:
    if isinstance(node, str):
        return VARIABLE.sub(lambda m: values.get(m[1], m[0]), node)
    if isinstance(node, Mapping):
        return {_fill(key, values): _fill(value, values) for key, value in node.items()}
    return [_fill(item, values) for item in node] if isinstance(node, list) else node


def _step(name: str, stanza: Mapping[str, Any]) -> GraphStep | None:
    command = COMMAND.match(str(stanza.get("cmd", "")) + " ")
    params = stanza.get("params", [])
    locked = [key for entry in params if isinstance(entry, Mapping) for key in entry.get(LOCK, [])]
    if not command or not locked:
        return None
    sections = tuple(entry for entry in params if isinstance(entry, str) and entry not in SHARED)
    return GraphStep(name, command[1], sections, locked[0], tuple(stanza.get("deps", [])))
