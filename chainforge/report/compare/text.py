"""A comparison for a terminal: settings, the table, the problems that flipped; and as JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from chainforge.report.compare.problems import Difference, Flip
from chainforge.report.table import pad, percent

VALUE = 60  # characters of a setting's value
TEXT = 400  # of a question or an answer
STEPS = 4  # steps that are named before the rest is counted
HEAD = ("", "checkpoint", "bench", "n", "A", "B", "B − A", "95% interval", "→ right", "→ wrong")


@dataclass(frozen=True)
class Comparison:
    """Two runs by name: what was set differently, and the cells in the order of the recipe."""

    a: str
    b: str
    settings: Mapping[str, tuple[Any, Any]]
    lock: Mapping[str, Sequence[str]]  # steps by what differs in them
    cells: Sequence[Difference]
    outdated: Mapping[str, Sequence[tuple[str, str]]]  # run -> cells older than its settings

    def as_json(self) -> dict[str, Any]:
        """Everything, with every flip."""
        cells = [
            {
                **{key: value for key, value in asdict(cell).items() if key != "paired"},
                "difference": cell.paired and cell.paired.mean_difference,
                "ci95_lo": cell.paired and cell.paired.lo,
                "ci95_hi": cell.paired and cell.paired.hi,
                "p_value": cell.paired and cell.paired.p_value,
                "clear": cell.clear,
            }
            for cell in self.cells
        ]
        return {
            "a": self.a,
            "b": self.b,
            "settings": {key: {"a": a, "b": b} for key, (a, b) in self.settings.items()},
            "lock": {what: list(steps) for what, steps in self.lock.items()},
            "cells": cells,
            "outdated": {run: [list(cell) for cell in cells] for run, cells in self.outdated.items()},
        }

    def as_text(self, examples: int, *, everywhere: bool) -> str:
        """For people, with `examples` flips each way: of every cell, or of the one where most flipped."""
        parts = [f"A  {self.a}\nB  {self.b}", self._settings_text(), table(self.cells), *self._notes()]
        shown = self.cells
        if not everywhere:
            shown = [max(self.cells, key=lambda cell: len(cell.gained) + len(cell.lost))]
        parts += [flips_text(cell, examples) for cell in shown if examples and (cell.gained or cell.lost)]
        return "\n\n".join(parts)

    def _settings_text(self) -> str:
        width = max(map(len, self.settings), default=0)
        lines = [f"  {key:<{width}}  {short(a)} → {short(b)}" for key, (a, b) in self.settings.items()]
        lines += [f"  {what} in {name_some(steps)}" for what, steps in self.lock.items()]
        return "\n".join(["Different, A → B:", *lines]) if lines else "No setting, plugin or code differs."

    def _notes(self) -> Iterator[str]:
        runs: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for run, cells in self.outdated.items():
            runs.setdefault(tuple(cells), []).append(run)
        for old, names in runs.items():
            if old:
                which = name_some([f"{checkpoint} on {bench}" for checkpoint, bench in old])
                yield f"Careful, {' and '.join(names)}: other settings or inputs than now made {which}"
        partly = [cell for cell in self.cells if cell.paired and not cell.n == cell.n_a == cell.n_b]
        if partly:
            sizes = name_some(
                [f"{cell.checkpoint} on {cell.bench} ({cell.n_a}, {cell.n_b})" for cell in partly]
            )
            yield f"Only problems that both runs have are compared. A and B have more: {sizes}"
        if any(cell.clear for cell in self.cells):
            yield (
                "* the interval excludes 0. One comparison in twenty does so by chance alone, and another\n"
                "  seed moves both runs: docs/results.md shows by how much."
            )


def table(cells: Sequence[Difference]) -> str:
    """A line per checkpoint and bench."""
    lines = [HEAD, *map(table_row, cells)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(pad(c, widths[i], left=i < 3) for i, c in enumerate(line)).rstrip() for line in lines]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def table_row(cell: Difference) -> tuple[str, ...]:
    """Percent, and percentage points for the difference."""
    start = ("*" if cell.clear else "", cell.checkpoint, cell.bench)
    rates = (percent(cell.pass_a), percent(cell.pass_b))
    if cell.paired is None:
        why = "only in B" if cell.n_a is None else "only in A" if cell.n_b is None else "no problem in common"
        return *start, "–", *rates, "–", why, "–", "–"
    if cell.same_answers:
        return *start, f"{cell.n:,}", *rates, "0", "same answers", "0", "0"
    interval = f"[{points(cell.paired.lo)}, {points(cell.paired.hi)}]"
    flips = (str(len(cell.gained)), str(len(cell.lost)))
    return *start, f"{cell.n:,}", *rates, points(cell.paired.mean_difference), interval, *flips


def flips_text(cell: Difference, count: int) -> str:
    """`count` problems each way."""
    ways = (("wrong → right", cell.gained), ("right → wrong", cell.lost))
    blocks = [f"{cell.checkpoint} on {cell.bench}:"]
    for title, flips in ways:
        blocks += [f"{title}, {i} of {len(flips)}: {flip_text(f)}" for i, f in enumerate(flips[:count], 1)]
    return "\n\n".join(blocks)


def flip_text(flip: Flip) -> str:
    """The problem with both answers, shortened."""
    earlier = "".join(f"  earlier    {short(turn, TEXT)}\n" for turn in flip.earlier)
    return (
        f"{short(flip.prompt_id)}\n{earlier}"
        f"  question   {short(flip.question, TEXT)}\n"
        f"  reference  {'–' if flip.reference is None else short(flip.reference, TEXT)}\n"
        f"  A          {short(flip.a, TEXT)}\n"
        f"  B          {short(flip.b, TEXT)}"
    )


def points(difference: float) -> str:
    """+3.2, in percentage points."""
    return f"{100 * difference:+.1f}"


def short(value: Any, most: int = VALUE) -> str:
    """One line: begin and end of what is longer, and nothing that a terminal would obey."""
    if value is None:
        return "–"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
    if len(text) <= most:
        return text or "(nothing)"
    return f"{text[: most // 2]} … {text[len(text) - most // 2 :]}"


def name_some(things: Sequence[str]) -> str:
    """The first few, and how many more."""
    rest = len(things) - STEPS
    return ", ".join(things[:STEPS]) + (f" and {rest} more" if rest > 0 else "")
