"""Reward `overlong`: DAPO's soft punishment of long responses, 0.0 to -1.0 (arXiv 2503.14476, equation 13).

Up to `max_tokens` - `cache` tokens it is 0; from there it falls in a straight line, to -1 at `max_tokens`.

>>> overlong = Overlong(max_tokens=100, cache=20)
>>> overlong(completion_ids=[[7] * n for n in (80, 90, 100, 120)])
[0.0, -0.5, -1.0, -1.0]
"""

from collections.abc import Callable
from dataclasses import dataclass

import chainforge as cf


@dataclass(frozen=True, kw_only=True)
class Overlong:
    """Settings, in tokens: `max_tokens`, usually the step's `max_new_tokens`, and `cache`, its soft part."""

    max_tokens: int
    cache: int

    def __post_init__(self) -> None:
        if not 0 < self.cache <= self.max_tokens:
            raise ValueError("cache is above 0 and at most max_tokens: DAPO has 4,096 of 20,480")

    def __call__(self, *, completion_ids: list[list[int]], **_: object) -> list[float | None]:
        """None where there are no tokens to count, as with a teacher's trace."""
        return [self.punishment(len(ids)) if ids else None for ids in completion_ids]

    def punishment(self, count: int) -> float:
        beyond = count - (self.max_tokens - self.cache)
        return -min(1.0, max(0, beyond) / self.cache) if beyond > 0 else 0.0


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    register("overlong", Overlong, factory=True)
