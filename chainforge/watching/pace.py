"""How far a step is, how fast it goes, and how long it will take."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from chainforge.watching.read import number_of

UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


@dataclass(frozen=True, slots=True)
class Pace:
    """Of one bar. What cannot be known is None."""

    title: str
    unit: str
    done: int
    total: int | None
    turns_per_s: float | None
    tokens_per_s: float | None
    marked_at: float
    """When the step said so, in seconds since 1970."""

    def left_s(self, now: float) -> float | None:
        """Seconds to the end of this bar, by its pace, and by the time that has passed since."""
        if not self.turns_per_s or self.total is None:
            return None
        return max(0.0, (self.total - self.done) / self.turns_per_s - max(0.0, now - self.marked_at))


def read_pace(said: Mapping[str, Any] | None) -> Pace | None:
    """What STEP.progress.json says; None where it says nothing that can be understood."""
    if not said or not isinstance(marks := said.get("marks"), list):
        return None
    found = [mark for mark in map(_mark, marks) if mark]
    if not found:
        return None
    (began, first, few), (at, done, many) = found[0], found[-1]
    total = number_of(said.get("total"))
    seconds = at - began
    return Pace(
        title=str(said.get("title", ""))[:200],
        unit=str(said.get("unit", "step"))[:20],
        done=int(done),
        total=None if total is None else int(total),
        turns_per_s=(done - first) / seconds if seconds > 0 and done > first else None,
        tokens_per_s=(many - few) / seconds if seconds > 0 and many > few else None,
        marked_at=at,
    )


def _mark(value: Any) -> tuple[float, float, float] | None:
    if not isinstance(value, list) or len(value) != 3:
        return None
    numbers = [number for number in map(number_of, value) if number is not None]
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None


def in_words(seconds: float) -> str:
    """42 s, 3 min 20 s, 2 h 5 min, 3 d 4 h"""
    whole = round(seconds)
    for (name, size), (lesser, small) in pairwise(UNITS):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {name}" + (f" {rest} {lesser}" if rest else "")
    return f"{whole} s"
