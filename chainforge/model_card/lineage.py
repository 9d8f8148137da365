"""What made a checkpoint, as dvc.lock has it: the steps, their settings, code and plugins, and the data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainforge.config.verbs import VERBS
from chainforge.errors import ChainForgeError
from chainforge.project.graph import GraphStep
from chainforge.project.recorded import md5

TRAINING = ("sft", "grpo", "distill")
MAKING = (*TRAINING, "prompts", "collect", "filter", "sample")  # the others look, and make nothing

Tree = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class File:
    """A file or folder that a step read or wrote, with the digest that it had."""

    path: str
    md5: str


@dataclass(frozen=True, slots=True)
class Made:
    """A step as it ran: its settings in one mapping, and its part of plugins.lock.json."""

    name: str
    verb: str
    settings: Tree
    lock: Tree
    reads: tuple[File, ...]
    writes: tuple[File, ...]


def lineage(checkpoint: Path, graph: Mapping[str, GraphStep], recorded: Tree) -> tuple[Made, ...]:
    """The steps that lead to a checkpoint, its own last, in the order of the recipe."""
    made = {name: _made(graph[name], stage) for name, stage in recorded.items() if name in graph}
    makers = {file.path: step for step in made.values() if step.verb in MAKING for file in step.writes}
    own = makers.get(checkpoint.as_posix())
    if own is None:
        raise ChainForgeError(
            f"no step in dvc.lock has made {checkpoint}",
            "run the step that writes it (dvc repro), or name one of its checkpoints",
        )
    found, waiting = {own.name}, [own]
    while waiting:
        for file in waiting.pop().reads:
            source = makers.get(file.path)
            if source is not None and source.name not in found:
                found.add(source.name)
                waiting.append(source)
    return tuple(made[name] for name in graph if name in found)


def line_of(steps: tuple[Made, ...]) -> tuple[list[Made], Tree]:
    """The training steps from the base model to the checkpoint, and the plugin that makes the base model."""
    by_output = {str(step.settings.get("output")): step for step in steps if step.verb in TRAINING}
    line = [steps[-1]]
    while (start := line[0].settings.get("start_from")) in by_output:
        line.insert(0, by_output[str(start)])
    first = line[0].settings
    base = first.get("model") or first.get("base_model") or {"plugin": "pretrained", "model": start}
    return line, {"plugin": base} if isinstance(base, str) else base


def count_rows(file: File) -> int | None:
    """Lines of a JSONL that lies here as it was read; None where it does not."""
    path = Path(file.path)
    return path.read_bytes().count(b"\n") if is_as_recorded(file) else None


def is_as_recorded(file: File) -> bool:
    """Whether a file is here and has the digest that DVC took."""
    path = Path(file.path)
    return path.is_file() and md5(path) == file.md5


def _made(step: GraphStep, stage: Tree) -> Made:
    params = stage.get("params", {})
    lock = params.get("plugins.lock.json", {}).get(step.lock_key, {})
    own = params.get("params.yaml", {})
    return Made(
        step.name,
        step.verb,
        dict(_settings(step, own)),
        lock,
        tuple(File(dep["path"], dep.get("md5", "")) for dep in stage.get("deps", [])),
        tuple(File(out["path"], out.get("md5", "")) for out in stage.get("outs", [])),
    )


def _settings(step: GraphStep, recorded: Tree) -> Iterator[tuple[str, Any]]:
    """From the general section to the special one, as `load_settings` merges them, without those of `run`."""
    for section in step.sections:
        value = recorded.get(section)
        if section in getattr(VERBS.get(step.verb), "model_fields", {}):
            yield section, value
        elif isinstance(value, Mapping):
            yield from value.items()
