"""From the files of a project to the runs that the rules look at."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from chainforge.algorithms.statistics import paired_difference
from chainforge.config.distill import DistillSettings
from chainforge.config.evaluate import EvaluateSettings
from chainforge.config.filter import FilterSettings
from chainforge.config.grpo import GrpoSettings
from chainforge.config.run import RunSettings
from chainforge.config.sample import SampleSettings
from chainforge.config.sft import SftSettings
from chainforge.doctor.as_run import AsRun, as_run
from chainforge.doctor.runs import Comparison, EvaluationRun, GrpoRun, Run, SelectionRun, SftRun, Table
from chainforge.errors import ChainForgeError
from chainforge.project.graph import GraphStep, param, read_graph
from chainforge.project.recorded import read_recorded
from chainforge.report.evaluations import Cell, read_cell, read_curve, read_funnel, read_numbers, rows_file
from chainforge.report.results import correctness_by_id
from chainforge.run.step import LOGS, file_name

HERE = Path()
TRAINED: Mapping[str, type[SftSettings]] = {"sft": SftSettings, "distill": DistillSettings}
SELECTED: Mapping[str, type[FilterSettings | SampleSettings]] = {
    "filter": FilterSettings,
    "sample": SampleSettings,
}
VERBS = ("grpo", *TRAINED, *SELECTED, "evaluate")


def read_runs(steps: Iterable[GraphStep]) -> Iterator[Run]:
    """Of each step that has left something to look at."""
    recorded = read_recorded()
    for step in steps:
        if run := read_run(step, recorded):
            yield run


def known_steps() -> dict[str, GraphStep]:
    """The steps that rules are about."""
    return {name: step for name, step in read_graph().items() if step.verb in VERBS}


def read_run(step: GraphStep, recorded: Mapping[str, Any]) -> Run | None:
    """One step, or None where it has left nothing yet."""
    if step.verb == "evaluate":
        return read_evaluation(step, recorded)
    metrics = Path("metrics") / f"{file_name(step.name)}.json"
    if step.verb in SELECTED:
        if not metrics.is_file():
            return None
        selection, key = as_run(step, metrics, recorded).settings(SELECTED[step.verb], step)
        return SelectionRun(step.name, selection, key, read_funnel(metrics))
    if not (table := read_table(step.name)):
        return None
    ran = as_run(step, plot_file(step.name), recorded)
    if step.verb == "grpo":
        return grpo_run(step, ran, table)
    settings, key = ran.settings(TRAINED[step.verb], step)
    summary = read_numbers(metrics) if table.is_done and metrics.is_file() else {}
    return SftRun(step.name, settings, key, table, summary)


def plot_file(step: str) -> Path:
    """The finished table. DVC deletes it before the step runs again."""
    return Path("plots") / f"{file_name(step)}.csv"


def read_table(step: str) -> Table | None:
    """The finished one, else the one that grows; None where neither has a row yet."""
    done, live = plot_file(step), LOGS / f"{file_name(step)}.csv"
    path = done if done.is_file() else live
    if path == live and not (live.is_file() and live.read_bytes().count(b"\n") > 1):
        return None
    curve = read_curve(path)
    return Table(curve, path == done) if curve else None


def grpo_run(step: GraphStep, ran: AsRun, table: Table) -> GrpoRun:
    settings, key = ran.settings(GrpoSettings, step)
    precision = RunSettings.model_validate(ran.sections["run"]).precision
    deciding = param("evaluate").get("reward", "correct")
    files = (settings.prompts, settings.extra_prompts)
    counts = [count_lines(Path(path)) for path in files if path]
    watched = None
    if settings.watch:
        there = count_lines(Path(settings.watch.prompts))
        watched = min(settings.watch.max_prompts, there or settings.watch.max_prompts)
    return GrpoRun(
        step.name,
        settings,
        key,
        table,
        deciding if deciding in settings.rewards else None,
        settings.samples_exactly(precision),
        None if None in counts else sum(n or 0 for n in counts),
        watched,
        tuple(comparisons(Path(settings.output).name, Path(settings.start_from).name))
        if table.is_done
        else (),
    )


def count_lines(path: Path) -> int | None:
    """Records of a JSONL; None where it is not there."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(1 for _ in file)


def read_evaluation(step: GraphStep, recorded: Mapping[str, Any]) -> EvaluationRun | None:
    (path,) = (Path(out.path) for out in step.outs if out.path.startswith("metrics/"))
    if not path.is_file():
        return None
    settings, key = as_run(step, path, recorded).settings(EvaluateSettings, step)
    checkpoint, bench = path.parent.name, path.stem
    parent = (param("report").get("parents") or {}).get(checkpoint)
    found = next(iter(comparisons(checkpoint, parent, bench)), None) if parent else None
    return EvaluationRun(step.name, settings, key, read_numbers(path), found)


def comparisons(checkpoint: str, parent: str, bench: str | None = None) -> Iterator[Comparison]:
    """On each bench on which both were evaluated, or on that one."""
    for name in [bench] if bench else param("benches"):
        mine, theirs = read_both(checkpoint, parent, name)
        if mine is None or theirs is None:
            continue
        right, before = (correctness_by_id(cell.problems.values()) for cell in (mine, theirs))
        if shared := [prompt_id for prompt_id in right if prompt_id in before]:
            paired = paired_difference([right[i] for i in shared], [before[i] for i in shared])
            yield Comparison(checkpoint, parent, name, len(shared), paired)


def read_both(checkpoint: str, parent: str, bench: str) -> tuple[Cell, Cell] | tuple[None, None]:
    """Both evaluations on a bench, or neither."""
    files = [rows_file(HERE, name, bench) for name in (checkpoint, parent)]
    files += [Path("metrics/eval", name, f"{bench}.json") for name in (checkpoint, parent)]
    if not all(path.is_file() for path in files):
        return None, None
    reward = param("evaluate").get("reward", "correct")
    return read_cell(HERE, checkpoint, bench, reward), read_cell(HERE, parent, bench, reward)


def nothing_to_read(step: str) -> ChainForgeError:
    """The error for a step that has not begun."""
    return ChainForgeError(f"{step} has left nothing to look at yet", f"run it: dvc repro {step}")
