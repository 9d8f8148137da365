"""The scores of each checkpoint by seed, for every group of runs that differ in the seed alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainforge.algorithms.over_seeds import mean_over_seeds
from chainforge.report.compare.settings import changed_settings, value_of
from chainforge.report.compare.text import short
from chainforge.report.seeds.runs import SEED, SeedRun, settings_of
from chainforge.report.table import pad, percent


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of the same settings by seed, and pass@1 by (checkpoint, bench) and seed."""

    differs: Mapping[str, Any]  # settings that are not those of the first group
    runs: Mapping[Any, str]  # seed -> name
    scores: Mapping[tuple[str, str], Mapping[Any, float]]
    problems: Mapping[tuple[str, str], int]  # of all seeds

    def means(self) -> Iterator[tuple[str, str, float, float, float]]:
        """(checkpoint, bench, mean, lo, hi) over the seeds that have the cell."""
        for (checkpoint, bench), by_seed in self.scores.items():
            problems = self.problems[checkpoint, bench]
            yield checkpoint, bench, *mean_over_seeds(list(by_seed.values()), problems)


def groups(runs: Sequence[SeedRun]) -> list[Group]:
    """Of at least two seeds each, in the order of their first run. Twins are left out."""
    found: dict[str, dict[Any, SeedRun]] = {}
    for run in runs:
        if run.usable_cells and not run.is_twin:
            same = found.setdefault(json.dumps(settings_of(run.params), sort_keys=True), {})
            same[value_of(run.params, SEED)] = run
    several = [dict(sorted(same.items())) for same in found.values() if len(same) > 1]
    return [_group(same, several[0]) for same in several]


def _group(same: Mapping[Any, SeedRun], first: Mapping[Any, SeedRun]) -> Group:
    params, base = (settings_of(next(iter(runs.values())).params) for runs in (same, first))
    cells = dict.fromkeys(cell for run in same.values() for cell in run.usable_cells)
    answers = {
        cell: {seed: found for seed, run in same.items() if (found := run.answers(*cell))} for cell in cells
    }
    scores = {cell: {s: a.mean_rate(a.rows) for s, a in by.items()} for cell, by in answers.items()}
    problems = {cell: sum(len(a.rows) for a in by.values()) for cell, by in answers.items()}
    differs = {key: now for key, (_, now) in changed_settings(base, params).items()}
    return Group(differs, {seed: run.name for seed, run in same.items()}, scores, problems)


def as_text(found: Sequence[Group]) -> str:
    """A table per group, in Markdown, which a terminal shows as well."""
    return "\n\n".join(map(_table, found))


def _table(group: Group) -> str:
    head = ["checkpoint", "bench", *(f"seed {seed}" for seed in group.runs), "mean", "95% over seeds"]
    lines = [head]
    for checkpoint, bench, mean, lo, hi in group.means():
        by_seed = group.scores[checkpoint, bench]
        interval = f"[{percent(lo)}, {percent(hi)}]" if len(by_seed) > 1 else "–"
        rates = [percent(by_seed.get(seed)) for seed in group.runs]
        lines.append([checkpoint, bench, *rates, percent(mean), interval])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = []
    for line in lines:
        padded = [pad(cell, widths[i], left=i < 2) for i, cell in enumerate(line)]
        rows.append(f"| {' | '.join(padded)} |")
    ruler = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    settings = ", ".join(f"{key}={short(value)}" for key, value in group.differs.items())
    return "\n".join([f"{settings or 'As first run'}:", "", rows[0], ruler, *rows[1:]])


def as_json(found: Sequence[Group]) -> dict[str, Any]:
    """For programs."""
    return {
        "groups": [
            {
                "settings": dict(group.differs),
                "runs": [{"seed": seed, "name": name} for seed, name in group.runs.items()],
                "cells": [
                    {
                        "checkpoint": checkpoint,
                        "bench": bench,
                        "by_seed": {str(s): x for s, x in group.scores[checkpoint, bench].items()},
                        "mean": mean,
                        "ci95_lo": lo,
                        "ci95_hi": hi,
                    }
                    for checkpoint, bench, mean, lo, hi in group.means()
                ],
            }
            for group in found
        ]
    }
