"""Which supervised steps had examples of a problem, and whether they trained on them."""

from pathlib import Path
from typing import Any

from chainforge.config.distill import DistillSettings
from chainforge.config.sft import SftSettings
from chainforge.jsonl import count_rows
from chainforge.loops.held_out import held_out_places
from chainforge.project.graph import GraphStep, settings_of
from chainforge.report.evaluations import read_numbers
from chainforge.run.step import file_name, open_step
from chainforge.trace.about import rows_about

Facts = dict[str, Any]


def of_training(step: GraphStep, prompt_id: str, _: str) -> Facts | None:
    """The examples of the problem; `use` is trained, held out (for the evaluation loss) or unknown."""
    settings = settings_of(DistillSettings if step.verb == "distill" else SftSettings, step.name)
    metrics = Path("metrics") / f"{file_name(step.name)}.json"
    if not metrics.is_file():
        return None  # has not ended
    told = read_numbers(metrics)
    files = [path for path in (settings.examples, settings.extra_examples) if path and path.is_file()]
    before = [sum(map(count_rows, files[:place])) for place in range(len(files))]
    held_out = places_held_out(step.name, sum(map(count_rows, files)), settings, told)
    rows = [
        {
            "file": str(file),
            "line": line,
            "origin": row["origin"],
            "response": row["response"],
            "use": "unknown" if held_out is None else "held out" if start + place in held_out else "trained",
        }
        for file, start in zip(files, before, strict=True)
        for place, line, row in _placed(file, prompt_id)
    ]
    if not rows:
        return None
    return {"epochs": settings.num_epochs, "too_long": told.get("too_long"), "examples": rows}


def _placed(file: Path, prompt_id: str) -> list[tuple[int, int, Facts]]:
    """(place from 0, line, row); steps write no empty lines."""
    return [(line - 1, line, row) for line, row in rows_about(file, prompt_id)]


def places_held_out(
    name: str, count: int, settings: SftSettings, told: dict[str, float | None]
) -> set[int] | None:
    """Places of the examples held out; None where only the tokenizer could tell, as some were too long."""
    held_out, training = told.get("held_out"), told.get("examples")
    if told.get("too_long") != 0 or held_out is None or training is None or training + held_out != count:
        return None
    return held_out_places(count, settings.eval_fraction, open_step(name))
