"""Score completions: start what can run elsewhere, run the rest here, weigh what comes back."""

import math
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from chainforge.records import Completion, Group, Prompt, Score
from chainforge.response import TagFormat
from chainforge.scoring.arguments import arguments_for
from chainforge.scoring.background import Background
from chainforge.scoring.call import Call, Values
from chainforge.scoring.reward import CallFailed, WeightedReward

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
    ) -> "Pending":
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
    ) -> Group:
        """The group that these parts belong to, with totals by today's weights: no reward is called."""
        scores = tuple(self.weigh(part) for _, part in zip(completions, parts, strict=True))
        return Group(prompt, tuple(completions), scores)

    def weigh(self, parts: Mapping[str, float | None]) -> Score:
        """The weighted sum of what applies, NaN where nothing does. `parts` has a value per reward."""
        if parts.keys() != self.weights.keys():
            raise ValueError(f"parts of {sorted(parts)}, but the rewards are {sorted(self.weights)}")
        ordered = {name: parts[name] for name in self.weights}
        applies = {name: value for name, value in ordered.items() if value is not None}
        total = sum(self.weights[name] * value for name, value in applies.items())
        return Score(total if applies else math.nan, ordered)


class Pending:
    """Rewards on their way. Nothing but `result` raises."""

    def __init__(
        self,
        scorer: Scorer,
        prompts: list[Prompt],
        completions: list[tuple[Completion, ...]],
        calls: list[Call],
    ) -> None:
        self._scorer, self._prompts, self._completions, self._calls = scorer, prompts, completions, calls
        self._groups: list[Group] | None = None
        # whether a reward runs elsewhere, so that something else can be done meanwhile
        self.waits: bool = scorer.hand_out(any(call.future is not None for call in calls))

    def result(self) -> list[Group]:
        """Groups in the order of the prompts, once every reward has answered. Rewards that run in the calling
        thread do so now; of several errors, theirs comes first, then the order is that of the rewards."""
        if self._groups is None:
            parts = iter(self._scorer.hand_out(self._parts() if self._scorer.is_first else None))
            self._groups = [
                self._scorer.rebuild(prompt, group, [next(parts) for _ in group])
                for prompt, group in zip(self._prompts, self._completions, strict=True)
            ]
        return self._groups

    def _parts(self) -> list[dict[str, float | None]]:
        columns = self._columns()
        count = sum(map(len, self._completions))
        return [{name: values[i] for name, values in columns.items()} for i in range(count)]

    def _columns(self) -> dict[str, Values]:
        here = [self._values(call, call.run) for call in self._calls]
        return {
            call.reward.name: self._values(call, call.finish) if values is None else values
            for call, values in zip(self._calls, here, strict=True)
        }

    def _values(self, call: Call, do: Callable[[], Any]) -> Any:
        waits = False
        try:
            values = do()
            waits = values is None
            for error in call.failed:
                self._tell(call, error)
            return values
        except CallFailed as error:
            if call.reward.options.on_error == "raise":
                raise
            self._tell(call, error)
            return [None] * call.arguments.count
        finally:
            if not waits:  # else its thread may be logging now, and the order would be random
                for name, value in call.logged:
                    self._scorer.log(name, value)
                call.logged.clear()

    def _tell(self, call: Call, error: CallFailed) -> None:
        """What counts as None for want of an answer: said once, counted always."""
        name, failures = call.reward.name, self._scorer.failures
        failures[name] = failures.get(name, 0) + 1
        if failures[name] == 1:
            sys.stderr.write(
                f"{error.problem}\n  -> counted as None, as the plugin asks for with on_error; "
                f"further failures are only counted, as {name}.failed_calls in the log\n"
            )
        self._scorer.log(f"{name}.failed_calls", failures[name])
