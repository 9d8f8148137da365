"""What steps read: made by a step, or there already; and watched by DVC."""

from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from pydantic import BaseModel

from chainforge.config.loading import load_settings
from chainforge.config.verbs import VERBS
from chainforge.errors import ChainForgeError
from chainforge.project.claims import overlap, setting
from chainforge.project.gates import GATES
from chainforge.project.graph import VARIABLE, GraphStep, dependencies, fill, outputs, param


def check_inputs(graph: Mapping[str, GraphStep]) -> None:
    """Raise ChainForgeError for an input that nobody makes, that DVC does not watch, or steps in a circle."""
    made = made_in(graph)
    for step in graph.values():
        for dep in step.deps:
            variable = VARIABLE.fullmatch(dep)
            if not variable or param(variable[1]) is not None:
                check_there(f"{step.name} reads {fill(dep)}{setting(dep)}", fill(dep), made)
        for name, path in named_files(load_settings(VERBS[step.verb], *step.sections)):
            if path not in outputs(step):
                check_watched(step, f"{step.sections[-1]}: {name}", path)
                check_there(f"{step.sections[-1]}: {name} names {path}", path, made)
    check_order(graph)


def made_in(graph: Mapping[str, GraphStep]) -> Collection[Path]:
    """Everything that the steps write, and the gates, which `lock` opens where none is set."""
    return [GATES, *(path for step in graph.values() for path in outputs(step))]


def made_by(path: Path, made: Collection[Path]) -> bool:
    """Whether a step writes it, or something in it, or the folder that it is in."""
    return any(overlap(path, out) for out in made)


def check_there(what: str, path: Path, made: Collection[Path]) -> None:
    """Raise ChainForgeError unless a step makes that path, or it is there."""
    if made_by(path, made):
        return
    if not path.exists():
        raise ChainForgeError(
            f"{what}, which is not there and which no step makes", "correct it, or put it there"
        )
    if not path.is_file() and not path.is_dir():
        raise ChainForgeError(f"{what}, which is neither a file nor a folder", "put a file or a folder there")


def check_watched(step: GraphStep, what: str, path: Path) -> None:
    """Raise ChainForgeError unless DVC notices when that input of the step changes."""
    if not any(path == dep or dep in path.parents for dep in dependencies(step)):
        raise ChainForgeError(
            f"{what} names {path}, which dvc.yaml does not list for {step.name}",
            f"add it to the deps of {step.name} in dvc.yaml, so that a change of it is noticed",
        )


def named_files(settings: BaseModel) -> Iterator[tuple[str, Path]]:
    """Every path in the settings of a verb, with the name of the setting."""
    for name, value in settings:
        values = value if isinstance(value, list) else [value]
        yield from ((name, path) for path in values if isinstance(path, Path))


def check_order(graph: Mapping[str, GraphStep]) -> None:
    """Raise ChainForgeError where steps wait for one another."""
    written = [(step.name, path) for step in graph.values() for path in outputs(step)]
    before = {
        step.name: {
            name
            for dep in dependencies(step)
            for name, out in written
            if name != step.name and overlap(dep, out)
        }
        for step in graph.values()
    }
    try:
        TopologicalSorter(before).prepare()
    except CycleError as error:
        circle = " <- ".join(error.args[1])
        raise ChainForgeError(
            f"these steps wait for one another: {circle}",
            "one of them has to read something else: look at their start_from, examples and prompts",
        ) from None
