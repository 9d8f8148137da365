"""Rewards on completions: TRL's call convention, every answer checked, no silent zero."""

import asyncio
import inspect
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, SimpleNamespace
from typing import Any

from chainforge.errors import ChainForgeError
from chainforge.records import Completion, Group, Prompt, Score
from chainforge.response import TagFormat


@dataclass(frozen=True, slots=True)
class WeightedReward:
    """A reward as params.yaml selects it."""

    name: str
    weight: float
    function: Callable[..., Any]
    conversational: bool
    source: str


@dataclass(frozen=True, slots=True)
class Scorer:
    """All rewards of a step. `timeout_s` bounds each call, where the platform has timers."""

    rewards: tuple[WeightedReward, ...]
    response_format: TagFormat
    timeout_s: float
    log: Callable[[str, Any], None] = lambda name, value: (
        None
    )  # where `log_metric` and `log_extra` of a reward go

    @property
    def weights(self) -> dict[str, float]:
        """Reward name -> weight."""
        return {reward.name: reward.weight for reward in self.rewards}

    def score(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Sequence[Completion]],
        *,
        global_step: int = 0,
        max_steps: int = 0,
    ) -> list[Group]:
        """Groups in the order of the prompts: each reward is called once for all completions."""
        flat = [
            (prompt, completion)
            for prompt, group in zip(prompts, completions, strict=True)
            for completion in group
        ]
        offered = self._columns(flat) | {
            "trainer_state": SimpleNamespace(global_step=global_step, max_steps=max_steps),
            "log_metric": self.log,
            "log_extra": self.log,
            "response_format": self.response_format,
        }
        values = {reward.name: self._call(reward, flat, offered) for reward in self.rewards}
        scores = iter(
            self._score({name: column[i] for name, column in values.items()}) for i in range(len(flat))
        )
        return [
            Group(prompt, tuple(group), tuple(next(scores) for _ in group))
            for prompt, group in zip(prompts, completions, strict=True)
        ]

    def _score(self, parts: Mapping[str, float | None]) -> Score:
        applies = {name: value for name, value in parts.items() if value is not None}
        total = sum(self.weights[name] * value for name, value in applies.items())
        return Score(total if applies else math.nan, dict(parts))

    def _columns(self, flat: Sequence[tuple[Prompt, Completion]]) -> dict[str, Any]:
        names = sorted({name for prompt, _ in flat for name in prompt.columns})
        columns: dict[str, Any] = {name: [p.columns.get(name) for p, _ in flat] for name in names}
        return columns | {
            "answer": [prompt.answer for prompt, _ in flat],
            "completion_ids": [list(completion.token_ids) for _, completion in flat],
        }

    def _call(
        self, reward: WeightedReward, flat: Sequence[tuple[Prompt, Completion]], offered: Mapping[str, Any]
    ) -> list[float | None]:
        if reward.conversational:
            texts: dict[str, Any] = {
                "prompts": [list(prompt.messages) for prompt, _ in flat],
                "completions": [[{"role": "assistant", "content": c.text}] for _, c in flat],
            }
        else:
            texts = {
                "prompts": [prompt.messages[-1]["content"] for prompt, _ in flat],
                "completions": [completion.text for _, completion in flat],
            }
        arguments = accepted(reward.function, texts | dict(offered))
        who = f"reward {reward.name!r} ({reward.source})"
        try:
            with time_limit(self.timeout_s):
                values = reward.function(**arguments)
                if inspect.isawaitable(values):
                    values = asyncio.run(_awaited(values))
        except TimeOut:
            raise ChainForgeError(
                f"{who} did not return within {self.timeout_s:g} s for {len(flat)} completions",
                "make it faster, or raise runtime.reward_timeout_s",
            ) from None
        except Exception as error:
            raise ChainForgeError(
                f"{who} raised {type(error).__name__}: {error}",
                "a reward must not raise on odd text: return 0.0, or None where it does not apply",
            ) from error
        return checked(who, values, len(flat))


def accepted(function: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Of what is offered, the keyword arguments that the function takes."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(offered)
    return {p.name: offered[p.name] for p in parameters if p.name in offered}


def checked(who: str, values: Any, count: int) -> list[float | None]:
    """The values as floats. Raises ChainForgeError for a wrong length, type, NaN or infinity."""
    fix = "return one finite number, or None, per completion"
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise ChainForgeError(f"{who} returned {type(values).__name__}, not a list", fix)
    if len(values) != count:
        raise ChainForgeError(f"{who} returned {len(values)} values for {count} completions", fix)
    for index, value in enumerate(values):
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise ChainForgeError(f"{who} returned {value!r} for completion {index}", fix)
    return [None if value is None else float(value) for value in values]


async def _awaited(values: Any) -> Any:
    return await values


class TimeOut(BaseException):
    """Raised inside a reward that took too long; not an Exception, so that it does not swallow it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeOut in the block after so many seconds: main thread of a platform with timers only."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise TimeOut

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
