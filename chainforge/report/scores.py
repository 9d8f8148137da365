"""Every score of a bench with its interval: the table behind the table."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from chainforge.report.evaluations import Cell

NAMED = {
    "pass_at_1": "pass@1",
    "strict": "strict",
    "lenient": "lenient",
    "greedy": "greedy",
    "greedy_lenient": "greedy, lenient",
    "maj_at_k": "maj@k",
}
AT_K = re.compile(r"pass_at_(\d+)")


@dataclass(frozen=True, slots=True)
class Score:
    """A fraction with its 95% interval."""

    value: float
    lo: float
    hi: float


Scores = Mapping[str, Score]  # by title, in the order of the columns


def bench_scores(cells: Sequence[Cell], bench: str) -> tuple[list[str], dict[str, Scores]]:
    """Titles of the columns, and the scores of each checkpoint; nothing where there are none but pass@1."""
    by_checkpoint: dict[str, Scores] = {
        cell.checkpoint: dict(_scores(cell.metrics)) for cell in cells if cell.bench == bench
    }
    titles = list(dict.fromkeys(title for scores in by_checkpoint.values() for title in scores))
    return (titles, by_checkpoint) if len(titles) > 1 else ([], {})


def _scores(metrics: Mapping[str, float | None]) -> Iterator[tuple[str, Score]]:
    at_k = sorted(int(match[1]) for name in metrics if (match := AT_K.fullmatch(name)))
    names = NAMED | {f"pass_at_{k}": f"pass@{k}" for k in at_k if k > 1}
    for name, title in names.items():
        prefix = "" if name == "pass_at_1" else f"{name}_"
        value, lo, hi = (metrics.get(key) for key in (name, f"{prefix}ci95_lo", f"{prefix}ci95_hi"))
        if value is not None and lo is not None and hi is not None:
            yield title, Score(value, lo, hi)
