"""Score completions: start what can run elsewhere, run the rest here, weigh what comes back."""

import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from chainforge.records import Completion, Group, Prompt, Score
from chainforge.response import TagFormat
from chainforge.scoring.arguments import arguments_for
from chainforge.scoring.background import Background
from chainforge.scoring.call import Call
from chainforge.scoring.pending import Pending
from chainforge.scoring.reward import WeightedReward

FOREVER_S = 1e9  # timers take no more


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Scorer:
    """All rewards of a step. `timeout_s` bounds each call, inline where the platform has timers.

    Of a step's processes, the first one calls the rewards, and hands out what they say.

    Close it, or use it in a `with`: rewards may have processes of their own. The garbage collector and the
    end of the program close it too.
    """

    rewards: tuple[WeightedReward, ...]
    response_format: TagFormat
    timeout_s: float
    log: Callable[[str, Any], None] = lambda name, value: None  # where `log_metric` and `log_extra` go
    keys: frozenset[str] = frozenset()  # variables that hold keys, whatever they are called
    is_first: bool = True
    hand_out: Callable[[Any], Any] = lambda value: value  # gives every process what the first one has
    columns: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    checked: set[tuple[str, str | None]] = field(default_factory=set, init=False, repr=False, compare=False)
    failures: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)
    background: Background = field(default_factory=Background, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.background.keys = self.keys
        weakref.finalize(self, self.background.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what runs in the background; a later call starts it again."""
        self.background.close()

    @property
    def weights(self) -> dict[str, float]:
        """Reward name -> weight."""
        return {reward.name: reward.weight for reward in self.rewards}

    def check(self, prompts: Iterable[Prompt]) -> Self:
        """Raise ChainForgeError where a reward cannot work here, or not on these prompts: before any work.

        A column that some of them have is offered from now on, None where a prompt lacks it.
        """
        prompts = list(prompts)
        self.columns.update(name for prompt in prompts for name in prompt.columns)
        for reward in self.rewards:
            reward.check(prompts if self.is_first else [], self.columns, self.checked)
        return self

    def score(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Sequence[Completion]],
        *,
        global_step: int = 0,
        max_steps: int = 1,
    ) -> list[Group]:
        """Groups in the order of the prompts: each reward is called once for all completions."""
        return self.begin(prompts, completions, global_step=global_step, max_steps=max_steps).result()

    def begin(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Sequence[Completion]],
        *,
        global_step: int = 0,
        max_steps: int = 1,
    ) -> Pending:
        """Start the rewards that wait elsewhere: async ones, and those with a process of their own."""
        flat = [
            (prompt, completion)
            for prompt, group in zip(prompts, completions, strict=True)
            for completion in group
        ]
        self.check(prompts)
        state = SimpleNamespace(
            global_step=global_step, max_steps=max_steps, epoch=global_step / max(max_steps, 1)
        )
        shared = {"trainer_state": state, "response_format": self.response_format}
        calls = []
        for reward in self.rewards if self.is_first else ():
            arguments = arguments_for(reward.function, reward.options, flat, shared, self.columns)
            seconds = min(reward.options.each_s or reward.options.timeout_s or self.timeout_s, FOREVER_S)
            calls.append(Call(reward, arguments, seconds, self.background))
            calls[-1].start()
        return Pending(self, list(prompts), [tuple(group) for group in completions], calls)

    def rebuild(
        self,
        prompt: Prompt,
        completions: Sequence[Completion],
        parts: Sequence[Mapping[str, float | None]],
        failed: Sequence[Sequence[str]] | None = None,
    ) -> Group:
        """The group that these parts belong to, with totals by today's weights: no reward is called."""
        without = failed if failed is not None else [()] * len(completions)
        scores = tuple(
            replace(self.weigh(part), failed=tuple(names))
            for _, part, names in zip(completions, parts, without, strict=True)
        )
        return Group(prompt, tuple(completions), scores)

    def weigh(self, parts: Mapping[str, float | None]) -> Score:
        """The weighted sum of what applies, NaN where nothing does. `parts` has a value per reward."""
        if parts.keys() != self.weights.keys():
            raise ValueError(f"parts of {sorted(parts)}, but the rewards are {sorted(self.weights)}")
        ordered = {name: parts[name] for name in self.weights}
        applies = {name: value for name, value in ordered.items() if value is not None}
        total = sum(self.weights[name] * value for name, value in applies.items())
        return Score(total if applies else math.nan, ordered)
