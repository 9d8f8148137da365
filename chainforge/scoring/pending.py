"""Scores on their way: what runs elsewhere is waited for, what runs here runs, what failed is told."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chainforge.records import Completion, Group, Prompt
from chainforge.scoring.call import Call, Values
from chainforge.scoring.reward import CallFailed

if TYPE_CHECKING:
    from chainforge.scoring.scorer import Scorer


class Pending:
    """Rewards on their way. Nothing but `result` raises."""

    def __init__(
        self,
        scorer: "Scorer",
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
            self._groups = []
            for prompt, group in zip(self._prompts, self._completions, strict=True):
                its = [next(parts) for _ in group]
                found, failed = [part for part, _ in its], [names for _, names in its]
                self._groups.append(self._scorer.rebuild(prompt, group, found, failed))
        return self._groups

    def _parts(self) -> list[tuple[dict[str, float | None], list[str]]]:
        """For each completion, what the rewards say, and which of them failed to."""
        columns = self._columns()
        return [
            (
                {name: values[i] for name, values in columns.items()},
                [call.reward.name for call in self._calls if i in call.failed],
            )
            for i in range(sum(map(len, self._completions)))
        ]

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
            for error in call.failed.values():
                self._tell(call, error)
            return values
        except CallFailed as error:
            if call.reward.options.on_error == "raise":
                raise
            self._tell(call, error)
            call.failed = dict.fromkeys(range(call.arguments.count), error)
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
