"""Reward `length`: 1.0 for a text of the wanted length, falling to 0.0 over `slack` below and above it.

>>> supercot = cf.tag_format("supercot")
>>> texts = [supercot.render("one two three " * n, "5") for n in (1, 3, 9)]
>>> Length(unit="words", at_least=3, at_most=6, slack=6)(
...     completions=texts, completion_ids=[[]] * 3, response_format=supercot
... )
[1.0, 0.5, 0.0]
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import chainforge as cf


@dataclass(frozen=True, kw_only=True)
class Length:
    """Settings: the range, in tokens of the whole response, or in words or characters of one `part` of it.

    `slack` is how far from the range the reward reaches 0.0; at 0 there is nothing in between.
    """

    at_most: int
    at_least: int = 0
    slack: int = 0
    unit: Literal["tokens", "words", "characters"] = "words"
    part: Literal["response", "reasoning", "summary"] = "reasoning"

    def __post_init__(self) -> None:
        if not 0 <= self.at_least <= self.at_most or self.slack < 0:
            raise ValueError("at_least is 0 or more, at_most is not below it, and slack is 0 or more")

    def __call__(
        self,
        *,
        completions: list[str],
        completion_ids: list[list[int]],
        response_format: cf.TagFormat,
        **_: object,
    ) -> list[float | None]:
        """0.0 for a completion without that part; None where there are no tokens to count."""
        if self.unit == "tokens":
            return [self.worth(len(ids)) if ids else None for ids in completion_ids]
        parts = [response_format.part(text, self.part) for text in completions]
        return [0.0 if part is None else self.worth(self.count(part)) for part in parts]

    def count(self, text: str) -> int:
        counted: Sequence[str] = text.split() if self.unit == "words" else text
        return len(counted)

    def worth(self, count: int) -> float:
        beyond = max(self.at_least - count, count - self.at_most, 0)
        return max(0.0, 1.0 - beyond / self.slack) if self.slack else float(beyond == 0)


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    register("length", Length, factory=True)
