"""Reward `repetition`: a punishment for going round in circles, 0.0 to -1.0.

It is the share of the stretches of 64 characters that stood in the text before, as `filter.max_repetition`
has it, less what is `allowed`. A text of fewer than 64 characters has no stretch, and is not punished.

>>> texts = ["The sum of 12 and 35 is 47.", "Wait, let me check that again. " * 40]
>>> Repetition(part="response")(completions=texts, response_format=cf.tag_format("supercot"))
[0.0, -0.97...]
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import chainforge as cf


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """Settings: which `part` is read, and the share that is `allowed`; from there to 1 it falls to -1."""

    allowed: float = 0.0
    part: Literal["response", "reasoning", "summary"] = "response"

    def __post_init__(self) -> None:
        if not 0 <= self.allowed < 1:
            raise ValueError("allowed is a share: 0 or more, and below 1")

    def __call__(
        self, *, completions: list[str], response_format: cf.TagFormat, **_: object
    ) -> list[float | None]:
        """One punishment per completion. Of one without that part, all of it is read."""
        parts = [response_format.part(text, self.part) or text for text in completions]
        return [self.punishment(cf.repeated_share(part)) for part in parts]

    def punishment(self, share: float) -> float:
        return 0.0 if share <= self.allowed else (self.allowed - share) / (1 - self.allowed)


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    register("repetition", Repetition, factory=True)
