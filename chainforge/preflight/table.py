"""What is found, as lines for a person."""

from collections.abc import Iterator, Sequence

from chainforge.preflight.cost import Cost
from chainforge.preflight.estimate import Estimate, Finding
from chainforge.preflight.judge import ranked
from chainforge.preflight.surroundings import bytes_on_disk

WIDTH = 44


def lines(estimates: Sequence[Estimate], around: Sequence[Finding]) -> Iterator[str]:
    """The table, each step's sample, and what to change."""
    known = [estimate for estimate in estimates if estimate.parts]
    if known:
        yield f"{'step':<{WIDTH}}{'time':>9}{'CPU':>9}{'memory':>11}{'disk':>10}"
    for estimate in estimates:
        if estimate.parts:
            disk = estimate.checkpoint + estimate.saves
            yield _row(estimate.step, estimate.cost, estimate.memory, disk)
        elif estimate.waits_for:
            yield f"{estimate.step:<{WIDTH}} not tried: {estimate.waits_for}"
        else:
            yield f"{estimate.step:<{WIDTH}} failed"
    if len(known) > 1:
        whole = Cost()
        for estimate in known:
            whole = whole.plus(estimate.cost)
        most = max(estimate.memory for estimate in known)
        yield _row("all, one after the other", whole, most, bytes_on_disk(known))
    for estimate in known:
        yield from _details(estimate)
    yield from _advice(estimates, around)


def _row(name: str, cost: Cost, memory: float, disk: float) -> str:
    time, cpu = duration(cost.wall), duration(cost.cpu)
    return f"{name:<{WIDTH}}{time:>9}{cpu:>9}{memory / 1e9:>8.2f} GB{disk / 1e9:>7.2f} GB"


def _details(estimate: Estimate) -> Iterator[str]:
    if estimate.like:
        yield f"\n{estimate.step}: as {estimate.like}, nothing else is known of it yet"
        return
    yield f"\n{estimate.step}: {estimate.model}"
    parts = sorted(estimate.parts.items(), key=lambda part: -part[1].wall)
    whole = estimate.cost.wall or 1.0
    yield "  time: " + ", ".join(f"{name} {cost.wall / whole:.0%}" for name, cost in parts if cost.wall)
    if estimate.tokens_per_s:
        speeds = (f"{name} {speed:,.0f}" for name, speed in estimate.tokens_per_s.items())
        yield "  tokens per second: " + ", ".join(speeds)
    for rate in estimate.rates:
        yield (f"  {rate.name:<34}{rate.mean:>7.1%}   95% {rate.lo:.1%} to {rate.hi:.1%}, n = {rate.n}")
    for note in dict.fromkeys(estimate.notes):
        yield f"  {note}"


def _advice(estimates: Sequence[Estimate], around: Sequence[Finding]) -> Iterator[str]:
    rows = ranked(list(estimates), list(around))
    none = "\nnothing to change was found"
    none += " in what could be tried" if any(estimate.waits_for for estimate in estimates) else ""
    yield "\nwhat to change, in order of effect:" if rows else none
    for number, (step, finding) in enumerate(rows, start=1):
        about = f"{step}: " if step else ""
        yield f"{number:>3}. {'STOPS: ' if finding.stops else ''}{about}{finding.problem}"
        yield f"     -> {finding.fix}"


def duration(seconds: float) -> str:
    """In the unit that reads best."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"
