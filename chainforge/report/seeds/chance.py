"""Chance made visible: what rounding alone does to a run, beside what a seed does and what is claimed."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chainforge.errors import ChainForgeError, unknown
from chainforge.report.compare.settings import value_of
from chainforge.report.compare.text import points
from chainforge.report.evaluations import Curve, read_curve
from chainforge.report.figures import (
    BLUE,
    GREEN,
    ORANGE,
    PX,
    Line,
    as_percent,
    draw_lines,
    line,
    plain_style,
    to_svg,
)
from chainforge.report.seeds.runs import SEED, SeedRun, same, settings_of
from chainforge.report.table import percent


@dataclass(frozen=True, slots=True)
class Spread:
    """Runs that differ in one thing: their scores, 0…1, and their training curves."""

    label: str
    colour: str
    names: tuple[str, ...]
    scores: tuple[float, ...]
    curves: tuple[Curve, ...]

    @property
    def deviation(self) -> float:
        """The standard deviation of the scores; NaN of one alone."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else math.nan


def spreads(
    runs: Sequence[SeedRun],
    a: tuple[str, Mapping[Any, SeedRun]],
    b: tuple[str, Mapping[Any, SeedRun]] | None,
    cell: tuple[str, str],
    step: str,
) -> list[Spread]:
    """Twins of each seed that has some, the seeds of A, those of B. Raises ChainForgeError without twins."""
    found = []
    for seed, run in a[1].items():
        if twins := [twin for twin in runs if is_twin_of(twin, run)]:
            found.append(_spread(f"rounding, seed {seed}", BLUE, [run, *twins], cell, step))
    if not found:
        raise ChainForgeError(
            "no run has a twin that differs by rounding only",
            "chainforge seeds 17 --twins 3 makes three; with -S where A is another setting",
        )
    found.append(_spread("seeds" if b is None else f"seeds, {a[0]}", ORANGE, [*a[1].values()], cell, step))
    if b is not None:
        found.append(_spread(f"seeds, {b[0]}", GREEN, [*b[1].values()], cell, step))
    return found


def is_twin_of(twin: SeedRun, run: SeedRun) -> bool:
    """Whether both have the same seed, and settings that are equal but for rounding."""
    seeds = (value_of(twin.params, SEED), value_of(run.params, SEED))
    return twin.is_twin and same(*seeds) and settings_of(twin.params) == settings_of(run.params)


def _spread(label: str, colour: str, runs: Sequence[SeedRun], cell: tuple[str, str], step: str) -> Spread:
    answers = [(run, found) for run in runs if (found := run.answers(*cell))]
    scored = [(run, found.mean_rate(found.rows)) for run, found in answers]
    if not scored:
        known = dict.fromkeys(" on ".join(known) for run in runs for known in run.usable_cells)
        raise unknown("evaluation", " on ".join(cell), known)
    curves = [curve for run, _ in scored if (curve := curve_of(run, step))]
    names, scores = tuple(run.name for run, _ in scored), tuple(score for _, score in scored)
    return Spread(label, colour, names, scores, tuple(curves))


def curve_of(run: SeedRun, step: str) -> Curve | None:
    """What a step of that run logged, or None where it has none."""
    content = run.revision.read(f"plots/{step}.csv")
    if content is None:
        return None
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{step}.csv"
        path.write_bytes(content)
        return read_curve(path)


def draw(found: Sequence[Spread], cell: tuple[str, str], step: str, column: str) -> str:
    """SVG: a line per run over the steps of training, then a dot per run on held-out problems.

    Raises ChainForgeError where no run has that column.
    """
    curves = [curve for spread in found for curve in spread.curves]
    if not any(curve.has(column) for curve in curves):
        known = dict.fromkeys(name for curve in curves for name in curve.columns)
        raise unknown(f"column of plots/{step}.csv", column, known)
    with plain_style():
        figure = Figure(figsize=(900 * PX, (190 + 36 * len(found)) * PX))
        left, right = figure.subplots(1, 2, width_ratios=[1.0, 1.1])
        draw_lines(left, list(_lines(found, column)), f"{column} in training", percent=False)
        left.set_xlabel(f"step of {step}")
        _draw_dots(right, found, cell)
        return to_svg(figure)


def _lines(found: Sequence[Spread], column: str) -> Iterator[Line]:
    """Twins last, so that they lie on top. Not smoothed: where two runs part is to be seen."""
    for spread in reversed(found):
        for place, curve in enumerate(c for c in spread.curves if c.has(column)):
            label = "" if place else spread.label
            yield line(curve, column, label, spread.colour, smooth=False)


def _draw_dots(ax: Axes, found: Sequence[Spread], cell: tuple[str, str]) -> None:
    for place, spread in enumerate(found):
        mean = statistics.fmean(spread.scores)
        ax.plot(
            spread.scores, [place] * len(spread.scores), "o", color=spread.colour, alpha=0.7, markersize=7
        )
        ax.plot([mean, mean], [place - 0.3, place + 0.3], color=spread.colour)
    ax.set_yticks(range(len(found)), [spread.label for spread in found])
    ax.set_ylim(len(found) - 0.4, -0.6)
    ax.xaxis.set_major_formatter(as_percent)
    ax.set_title(f"{cell[0]} on {cell[1]}, pass@1")
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")


def as_text(found: Sequence[Spread]) -> str:
    """A line per row of the figure, and what it means."""
    width = max(len(spread.label) for spread in found)
    lines = [
        f"{s.label:<{width}}  {len(s.scores)} runs, {percent(min(s.scores))} to {percent(max(s.scores))}"
        + ("" if math.isnan(s.deviation) else f", standard deviation {100 * s.deviation:.1f} points")
        for s in found
    ]
    if found[-1].colour == GREEN:
        effect = statistics.fmean(found[-1].scores) - statistics.fmean(found[-2].scores)
        lines.append(f"{'the effect':<{width}}  {points(effect)} points between the means")
    return "\n".join(lines)


def as_json(found: Sequence[Spread]) -> dict[str, Any]:
    """For programs."""
    return {
        "spreads": [
            {
                "label": s.label,
                "runs": dict(zip(s.names, s.scores, strict=True)),
                "deviation": None if math.isnan(s.deviation) else s.deviation,
            }
            for s in found
        ]
    }
