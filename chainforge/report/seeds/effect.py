"""The difference of two settings over seeds, in words that nobody can take for more than it is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from chainforge.algorithms.over_seeds import SeedDifference, difference_over_seeds
from chainforge.errors import ChainForgeError
from chainforge.report.compare.problems import Answers
from chainforge.report.compare.text import points
from chainforge.report.seeds.runs import SeedRun
from chainforge.report.table import pad, percent

HEAD = (
    "",
    "checkpoint",
    "bench",
    "A",
    "B",
    "B − A",
    "95% interval",
    "seeds' share",
    "seeds needed",
    "by seed",
)


@dataclass(frozen=True, slots=True)
class Effect:
    """One checkpoint on one bench: B less A over `seeds`."""

    checkpoint: str
    bench: str
    seeds: tuple[Any, ...]
    pass_a: float
    pass_b: float
    problems: int  # answered in both, over all seeds
    difference: SeedDifference


def effects(a: Mapping[Any, SeedRun], b: Mapping[Any, SeedRun]) -> list[Effect]:
    """Of every cell that at least two common seeds have. Raises ChainForgeError if there is none."""
    common = [seed for seed in a if seed in b]
    cells = dict.fromkeys(cell for seed in common for cell in a[seed].usable_cells)
    found = [effect for cell in cells if (effect := _effect(*cell, [(s, a[s], b[s]) for s in common]))]
    if not found:
        raise ChainForgeError(
            f"A has the seeds {_listed(a)}, B has {_listed(b)}, and no evaluation has two in common",
            "run the missing ones: chainforge seeds SEED … -S KEY=VALUE",
        )
    return found


def _effect(checkpoint: str, bench: str, runs: Sequence[tuple[Any, SeedRun, SeedRun]]) -> Effect | None:
    seeds, per_seed, rates = [], [], []
    for seed, a, b in runs:
        if not all((checkpoint, bench) in run.usable_cells for run in (a, b)):
            continue
        before, after = (run.revision.answers(checkpoint, bench) for run in (a, b))
        if before and after and (pairs := paired_rates(before, after)):
            seeds.append(seed)
            per_seed.append({problem: after - before for problem, (before, after) in pairs.items()})
            rates.append([sum(side) / len(pairs) for side in zip(*pairs.values(), strict=True)])
    if len(seeds) < 2:
        return None
    pass_a, pass_b = (sum(side) / len(seeds) for side in zip(*rates, strict=True))
    count = sum(map(len, per_seed))
    return Effect(checkpoint, bench, tuple(seeds), pass_a, pass_b, count, difference_over_seeds(per_seed))


def paired_rates(a: Answers, b: Answers) -> dict[str, tuple[float, float]]:
    """(in A, in B) by problem. What a problem is called goes by its question: seeds number theirs anew."""
    found: dict[str, tuple[float, float]] = {}
    for prompt_id, row in a.rows.items():
        other = b.rows.get(prompt_id)
        if other and (row["question"], row.get("messages")) == (other["question"], other.get("messages")):
            question = f"{row['question']}\0{row.get('messages')}"
            name = f"{question}\0{prompt_id}" if question in found else question
            found[name] = a.rate(prompt_id), b.rate(prompt_id)
    return found


def as_json(a: str, b: str, over: str, found: Sequence[Effect]) -> dict[str, Any]:
    """For programs."""
    cells = [asdict(e) | {"clear": e.difference.clear, "verdict": sentence(e)} for e in found]
    return {"a": a, "b": b, "over": over, "cells": cells}


def as_text(a: str, b: str, found: Sequence[Effect], notes: Sequence[str]) -> str:
    """For people: the table, and a sentence for each line."""
    lines = [HEAD, *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["  ".join(pad(c, widths[i], left=i < 3) for i, c in enumerate(line)).rstrip() for line in lines]
    table = "\n".join([rows[0], "-" * max(map(len, rows)), *rows[1:]])
    said = "\n".join(map(sentence, found))
    return "\n\n".join([f"A  {a}\nB  {b}", table, said, *notes, *_cautions(found)])


def _row(effect: Effect) -> tuple[str, ...]:
    d = effect.difference
    start = ("*" if d.clear else "", effect.checkpoint, effect.bench)
    rates = (percent(effect.pass_a), percent(effect.pass_b), points(d.mean))
    interval = f"[{points(d.lo)}, {points(d.hi)}]"
    by_seed = " ".join(f"{s}:{points(x)}" for s, x in zip(effect.seeds, d.per_seed, strict=True))
    return *start, *rates, interval, f"{d.seed_share:.0%}", str(d.seeds_needed or "–"), by_seed


def sentence(effect: Effect) -> str:
    """Whether it can be told from noise."""
    d = effect.difference
    where = f"{effect.checkpoint} on {effect.bench}: "
    told = f"{points(d.mean)} points [{points(d.lo)}, {points(d.hi)}] over {len(effect.seeds)} seeds"
    if not any(d.per_seed):
        return f"{where}no seed shows a difference."
    if d.clear:
        return f"{where}{told} can be told from noise."
    if d.seeds_needed is None:
        return f"{where}{told} cannot be told from noise, and more seeds alone would not do."
    more = f"{d.seeds_needed} seeds would tell a difference of this size four times in five"
    return f"{where}{told} cannot be told from noise; about {more}."


def _cautions(found: Sequence[Effect]) -> Iterator[str]:
    if any(effect.difference.clear for effect in found):
        yield "* the interval excludes 0. One comparison in twenty does so by chance alone."
    if min(len(effect.seeds) for effect in found) < 5:
        yield ("Of few seeds, their share and the number needed are rough: half or twice is as likely.")


def unpaired(a: Mapping[Any, SeedRun], b: Mapping[Any, SeedRun]) -> Iterator[str]:
    """A line for each side that has seeds which the other lacks."""
    for name, mine, other in (("A", a, b), ("B", b, a)):
        if alone := [seed for seed in mine if seed not in other]:
            yield f"Left out, only in {name}: {_listed(alone)}"


def _listed(seeds: Any) -> str:
    return ", ".join(map(str, seeds)) or "none"
