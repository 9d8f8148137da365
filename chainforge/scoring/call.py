"""One call of one reward: started where it may run, finished where its values are wanted."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass, field
from typing import Any

from chainforge.containment import no_leaving
from chainforge.scoring.arguments import Arguments, is_async, wait_for_all
from chainforge.scoring.background import Background
from chainforge.scoring.limits import TimeOut, time_limit
from chainforge.scoring.process import Outcomes
from chainforge.scoring.reward import CallFailed, WeightedReward, reward_error
from chainforge.scoring.state import as_before, is_of_the_user
from chainforge.scoring.takes import wrong_shape
from chainforge.scoring.values import check_values

GRACE_S = 2.0  # for a coroutine to end after it was cancelled

Values = list[float | None]


@dataclass(slots=True)
class Call:
    """A call under way. What the reward logs is kept for the thread that asked, so that order is kept too."""

    reward: WeightedReward
    arguments: Arguments
    seconds: float
    background: Background
    logged: list[tuple[str, Any]] = field(default_factory=list)
    future: Future[Values] | Future[Outcomes] | None = None
    failed: dict[int, CallFailed] = field(default_factory=dict)  # by the place of the completion
    deadline: float = 0.0

    def start(self) -> None:
        """Start what runs elsewhere: in a process, or awaited in the background."""
        if self.reward.options.isolation == "process":
            process = self.background.process(self.reward)
            self.future = process.submit(self.arguments, self.seconds, self.log)
        elif is_async(self.reward.function):
            self._await(lambda: self.arguments.call(self.reward.function, self.log))

    def run(self) -> Values | None:
        """Run in this thread what was not started; None where the values are still to be awaited."""
        if self.future is not None:
            return None
        last_words = self.reward.gives_up(self.seconds)
        try:
            with as_before(), no_leaving(), time_limit(self.seconds, last_words):
                values = self.arguments.call(self.reward.function, self.log)
                waits = self.arguments.waits(values)
        except TimeOut:
            raise self.reward.took_too_long(self.seconds, self.arguments.count) from None
        except BaseException as error:
            if is_of_the_user(error):
                raise
            raise reward_error(self.reward.who, error, self._hint(error)) from error
        if waits:
            self._await(lambda: values)
            return None
        return check_values(self.reward.who, values, self.arguments.count)

    def finish(self) -> Values:
        """Wait for what was started."""
        assert self.future is not None
        futures: list[Future[Any]] = [self.future]
        if self.deadline and not wait(futures, max(0.0, self.deadline - time.monotonic())).done:
            self.background.give_up_events()  # it blocks the event loop
            raise self.reward.took_too_long(self.seconds, self.arguments.count)
        try:
            outcomes = self.future.result()
            self.failed = {
                n: outcome for n, outcome in enumerate(outcomes) if isinstance(outcome, CallFailed)
            }
            return [None if isinstance(outcome, CallFailed) else outcome for outcome in outcomes]
        except CancelledError as error:
            if not self.deadline:
                raise
            raise reward_error(self.reward.who, error) from None

    def log(self, name: str, value: Any) -> None:
        """What `log_metric` and `log_extra` do."""
        self.logged.append((name, value))

    def _hint(self, error: BaseException) -> str:
        return wrong_shape(error, conversational=self.arguments.conversational)

    def _await(self, begin: Callable[[], Any]) -> None:
        self.deadline = time.monotonic() + self.seconds + GRACE_S
        self.future = self.background.events.submit(self._awaited(begin))

    async def _awaited(self, begin: Callable[[], Any]) -> Values:
        limit = asyncio.timeout(self.seconds)
        try:
            async with limit:
                values = await wait_for_all(begin())
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if isinstance(error, TimeoutError) and limit.expired():
                raise self.reward.took_too_long(self.seconds, self.arguments.count) from None
            raise reward_error(self.reward.who, error, self._hint(error)) from error
        return check_values(self.reward.who, values, self.arguments.count)
