"""What work takes, and what more of it would take."""

import resource
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import psutil

T = TypeVar("T")


class Cost(NamedTuple):
    """Seconds. `cpu` is of all threads of this process, whatever else the machine does meanwhile."""

    cpu: float = 0.0
    wall: float = 0.0

    def plus(self, other: "Cost") -> "Cost":
        """Both."""
        return Cost(self.cpu + other.cpu, self.wall + other.wall)

    def beyond(self, other: "Cost") -> "Cost":
        """What this is more than the other, nothing where it is less."""
        return Cost(max(0.0, self.cpu - other.cpu), max(0.0, self.wall - other.wall))

    def times(self, factor: float) -> "Cost":
        """So often."""
        return Cost(self.cpu * factor, self.wall * factor)


class Point(NamedTuple):
    """One measurement: how often the fixed part was done, how much of the growing one, and what it took."""

    rounds: float
    size: float
    cost: Cost


class Line(NamedTuple):
    """Cost of one round, and of each unit more."""

    fixed: Cost
    each: Cost

    def at(self, rounds: float, size: float) -> Cost:
        """Cost of work of this size in these rounds."""
        return self.fixed.times(rounds).plus(self.each.times(size))


def spent(cost: Cost, device_type: str) -> float:
    """Seconds that count for how much more is tried: on a CPU those of this process, so that what else runs
    there does not make the sample small."""
    return cost.cpu if device_type == "cpu" else cost.wall


def timed(work: Callable[[], T]) -> tuple[T, Cost]:
    """What it returns, and what it took. Work on a GPU is waited for by whoever reads its result."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return result, Cost(time.process_time() - cpu, time.perf_counter() - wall)


def since_start() -> Cost:
    """What this process and those that it waited for have taken so far."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = time.process_time() + children.ru_utime + children.ru_stime
    return Cost(cpu, time.time() - psutil.Process().create_time())


def fit(points: Sequence[Point]) -> Line:
    """The line nearest to the points, neither part below 0."""
    cpu = _fit([(p.rounds, p.size, p.cost.cpu) for p in points])
    wall = _fit([(p.rounds, p.size, p.cost.wall) for p in points])
    return Line(Cost(cpu[0], wall[0]), Cost(cpu[1], wall[1]))


def _fit(points: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Least squares of rounds * a + size * b = seconds, relative to the seconds: small ones count as much."""
    weighed = [(r / s, n / s) for r, n, s in points if s > 0]
    if not weighed:
        return 0.0, 0.0
    rr, nn = sum(r * r for r, _ in weighed), sum(n * n for _, n in weighed)
    rn, r1, n1 = (
        sum(r * n for r, n in weighed),
        sum(r for r, _ in weighed),
        sum(n for _, n in weighed),
    )
    free = rr * nn - rn * rn
    if free > 1e-9 * rr * nn:
        a, b = (r1 * nn - n1 * rn) / free, (n1 * rr - r1 * rn) / free
        if a >= 0 and b >= 0:
            return a, b
        if a < 0 and nn:
            return 0.0, n1 / nn
        return r1 / rr, 0.0
    return (0.0, n1 / nn) if nn else (r1 / rr, 0.0)
