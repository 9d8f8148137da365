"""Read what the graph left behind: evaluations, training curves and selection counts."""

import csv
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainforge.errors import ChainForgeError, unknown
from chainforge.jsonl import read_rows
from chainforge.report.shape import Evaluated, check_shape

METRICS = (
    "n", "k", "pass_at_1", "ci95_lo", "ci95_hi", "greedy", "greedy_ci95_lo", "greedy_ci95_hi",
    "maj_at_k", "format_rate", "mean_tokens", "truncated_rate",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """One held-out problem: `correct` is the mean over its graded samples, None if none was graded."""

    prompt_id: str
    family: str
    correct: float | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One checkpoint on one bench: its summary numbers, and each problem by prompt id."""

    checkpoint: str
    bench: str
    metrics: Mapping[str, float | None]
    problems: Mapping[str, Problem]

    def required(self, key: str) -> float:
        """A number that an evaluation cannot be without."""
        value = self.metrics[key]
        if value is None:
            raise ChainForgeError(
                f"the evaluation of {self.checkpoint} on {self.bench} has no {key!r}", "run it again"
            )
        return value


@dataclass(frozen=True, slots=True)
class Curve:
    """A training run's numbers, column by column; NaN where a step has none."""

    name: str
    columns: Mapping[str, tuple[float, ...]]

    def has(self, column: str) -> bool:
        """Whether any step has a value in that column."""
        return any(not math.isnan(value) for value in self.columns.get(column, ()))


@dataclass(frozen=True, slots=True)
class Funnel:
    """How many a selection step read, dropped by reason, and kept; `other` is what else it counted."""

    name: str
    read: int
    kept: int
    dropped: Mapping[str, int]
    other: Mapping[str, float]


def evaluation_step(checkpoint: str, bench: str) -> str:
    """The step that evaluates it: the base model has steps of its own."""
    return f"evaluate{'_base' if checkpoint == 'base' else ''}@{checkpoint}-{bench}"


def rows_file(root: Path, checkpoint: str, bench: str) -> Path:
    """Where a checkpoint's answers on a bench are."""
    return root / "data" / "eval" / checkpoint / f"{bench}.jsonl"


def read_cell(root: Path, checkpoint: str, bench: str, reward: str) -> Cell:
    """Raises ChainForgeError that names the missing or broken file."""
    metrics_file = root / "metrics" / "eval" / checkpoint / f"{bench}.json"
    for path in (metrics_file, rows_file(root, checkpoint, bench)):
        if not path.is_file():
            raise ChainForgeError(
                f"{checkpoint} is listed in the report, but there is no {path}",
                f"run `dvc repro {evaluation_step(checkpoint, bench)}`. If DVC has no such step, list the "
                "bench in dvc.yaml (matrix of evaluate), or take it out of benches or checkpoints",
            )
    metrics = read_numbers(metrics_file)
    if absent := [key for key in METRICS if key not in metrics]:
        raise ChainForgeError(f"{metrics_file} has no {absent[0]!r}", "run the evaluate step again")
    problems: dict[str, Problem] = {}
    for where, row in eval_rows(rows_file(root, checkpoint, bench)):
        prompt_id = str(row["prompt_id"])
        if prompt_id in problems:
            raise ChainForgeError(
                f"{where}: prompt {prompt_id!r} occurs twice", "run the evaluate step again"
            )
        graded = [x for s in row["samples"] if (x := correctness(s, reward, where)) is not None]
        mean = math.fsum(graded) / len(graded) if graded else None
        problems[prompt_id] = Problem(prompt_id, str(row["source"]), mean)
    return Cell(checkpoint, bench, metrics, problems)


def eval_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (where, row) for each held-out problem of an evaluation."""
    for number, row in read_rows(path):
        where = f"{path}, line {number}"
        check_shape(Evaluated, row, where, "run the evaluate step again")
        yield where, row


def correctness(sample: Mapping[str, Any], reward: str, where: str) -> float | None:
    """The named reward of one sample; None if it was not graded. Raises if there is no such reward."""
    rewards: Mapping[str, float | None] = sample["rewards"]
    if reward not in rewards:
        error = unknown("reward", reward, rewards)
        raise ChainForgeError(f"{where}: {error.problem}", error.fix)
    return rewards[reward]


def read_numbers(path: Path) -> dict[str, float | None]:
    """A flat JSON object of finite numbers and nulls."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ChainForgeError(f"{path}: not JSON: {error}", "run the step that writes it again") from error
    if not isinstance(values, dict):
        raise ChainForgeError(f"{path}: expected an object", "run the step that writes it again")
    for key, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and abs(value) <= sys.float_info.max):
            raise ChainForgeError(f"{path}: {key!r} is {value!r:.40}, not a number", "write a number or null")
    return values


def read_curve(path: Path) -> Curve | None:
    """A row per step; None if there is no such file, because a trimmed graph lacks that step."""
    if not path.is_file():
        return None
    again = "run the step that writes it again"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            names, *rows = list(csv.reader(file)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ChainForgeError(f"{path} cannot be read: {error}", again) from None
    if "step" not in names:
        raise ChainForgeError(f"{path} has no column 'step'", again)
    if torn := [number for number, row in enumerate(rows, start=2) if len(row) != len(names)]:
        raise ChainForgeError(f"{path}, line {torn[0]}: not as many values as columns", again)
    try:
        columns = {name: tuple(float(row[i] or "nan") for row in rows) for i, name in enumerate(names)}
    except ValueError as error:
        raise ChainForgeError(f"{path}: {error}", "every value must be a number or empty") from None
    if not rows or any(math.isnan(step) for step in columns["step"]):
        raise ChainForgeError(f"{path} has {'a row without a step' if rows else 'no rows'}", again)
    return Curve(path.stem, {name: tuple(map(finite, column)) for name, column in columns.items()})


def finite(value: float) -> float:
    """Infinity becomes NaN: neither can be drawn."""
    return value if math.isfinite(value) else math.nan


def read_funnels(root: Path) -> tuple[Funnel, ...]:
    """The selection steps that ran, in recipe order."""
    folder = root / "metrics"
    files = [*sorted(folder.glob("filter_*.json")), *(folder / f"{n}.json" for n in SELECTIONS)]
    return tuple(read_funnel(path) for path in files if path.is_file())


SELECTIONS = ("rejection_sampling", "distill_data")


def read_funnel(path: Path) -> Funnel:
    """Raises ChainForgeError unless it says how many were read and kept."""
    counts = {key: value for key, value in read_numbers(path).items() if value is not None}
    if absent := [key for key in ("read", "kept") if key not in counts]:
        raise ChainForgeError(f"{path} has no {absent[0]!r}", "run the step that writes it again")
    dropped = {k.partition("/")[2]: int(v) for k, v in counts.items() if k.startswith("dropped/")}
    other = {k: v for k, v in counts.items() if k not in ("read", "kept") and not k.startswith("dropped/")}
    return Funnel(path.stem, int(counts["read"]), int(counts["kept"]), dropped, other)
