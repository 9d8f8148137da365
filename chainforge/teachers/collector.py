"""Ask a teacher everything once: as many calls at a time as it takes, no answer lost, no budget passed."""

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal

from chainforge.config.collector import CollectorSettings
from chainforge.hookspecs import ApiTeacher
from chainforge.prices import FREE
from chainforge.run.stopping import Stopping
from chainforge.teachers.budget import Budget
from chainforge.teachers.exchange import Exchange, Outcome, tokens_for
from chainforge.teachers.journal import Journal
from chainforge.teachers.limit import OUTAGE, Limit, backoff, held
from chainforge.teachers.paid import Paid
from chainforge.teachers.question import Question
from chainforge.teachers.queue import Job, Queue
from chainforge.teachers.stops import CollectionStopped, budget_reached, hopeless
from chainforge.teachers.tally import Tally

TICK_S = 0.1
PATIENCE_S = 900.0  # without one answer, while calls fail
UNREACHED_S = 30.0  # while there has never been a connection: a mistake in the address, or no network


class Collector:
    """One run over questions of which `paid` says what is answered already.

    `watch` is called about ten times a second. `base_s` scales the waits before asking again.
    """

    def __init__(
        self,
        teacher: ApiTeacher,
        journal: Journal,
        paid: Paid,
        settings: CollectorSettings,
        *,
        stopping: Stopping,
        retry_truncated: bool = False,
        watch: Callable[["Collector"], None] = lambda _: None,
        base_s: float = 1.0,
    ) -> None:
        cap = Decimal(str(settings.budget_usd)) if isinstance(settings.budget_usd, float | int) else None
        self.settings = settings
        self.limit = Limit(settings.concurrency, base_s)
        self.budget = Budget(cap, paid.spent, paid.possibly)
        self.tally = Tally(0)
        self.flying: set[asyncio.Task[None]] = set()
        self.stopped: CollectionStopped | None = None
        self._teacher, self._journal, self._paid = teacher, journal, paid
        self.priced = teacher.prices is not None
        self._prices = teacher.prices or FREE
        self._stopping, self._watch, self._base_s = stopping, watch, base_s
        self._retry_truncated = retry_truncated
        self._ended = asyncio.Event()
        self._answered_at = time.monotonic()
        self._reached = False
        self._problem = ""  # the newest
        self._crash: BaseException | None = None

    async def collect(self, questions: Iterable[Question]) -> None:
        """Return when every question has its answer or was skipped.

        Raises CollectionStopped where that cannot be, once the calls in flight are over.
        """
        asked = {question.fingerprint: question for question in questions}
        left = [Job(q, self._paid.sent[key]) for key, q in asked.items() if key not in self._paid.finals]
        self._queue = Queue(left)
        self.tally = Tally(len(asked), kept=len(asked) - len(left))
        if not left:
            return
        async with self._teacher.client(connections=self.settings.concurrency) as client:
            exchange = Exchange(
                self._teacher,
                client,
                self._journal,
                self.settings,
                self._retry_truncated,
                self.tally.text_came,
            )
            try:
                while (goes_on := self._goes_on() and bool(self._queue)) or self.flying:
                    if goes_on:
                        self._send(exchange)
                    self._watch(self)
                    await self._something_happens()
            finally:
                await self._abandon()
        if ending := self._crash or self.stopped:
            raise ending

    def _goes_on(self) -> bool:
        """Whether to send more, or only to wait for what is in flight."""
        silent_s = time.monotonic() - self._answered_at
        if self._queue and (reason := self._stopping.reason):
            self._stop(CollectionStopped("signal", f"stopped ({reason})"))
        elif self.limit.bad_in_a_row >= OUTAGE and silent_s > max(PATIENCE_S, self.settings.deadline_s):
            problem = f"no answer for {silent_s:.0f} s, in spite of asking again: {self._problem}"
            self._stop(CollectionStopped("outage", problem))
        elif self._problem and not self._reached and silent_s > UNREACHED_S:
            problem = f"nobody could be reached for {silent_s:.0f} s: {self._problem}"
            self._stop(CollectionStopped("outage", problem))
        elif why := hopeless(self.tally, self._problem):
            self._stop(why)
        return not (self.stopped or self._crash)

    def _stop(self, why: CollectionStopped) -> None:
        self.stopped = self.stopped or why

    def _send(self, exchange: Exchange) -> None:
        """Send what is due, as far as the limit, the budget and the hour allow."""
        now = time.monotonic()
        self.tally.waiting_for = ""
        if self.settings.off_peak_only and self._prices.window(datetime.now(UTC)) == "peak":
            self.tally.waiting_for = "off-peak hours"
            self._answered_at = now
            return
        while self.limit.room(len(self.flying), now) > 0 and (job := self._queue.pop(now)):
            most = self._prices.most(job.question.messages, tokens_for(self._teacher, job))
            if not self.budget.fits(most):
                self._queue.put(job, now)
                self.tally.waiting_for = "the budget: the calls in flight may use it up"
                if not self.flying:
                    self._stop(budget_reached(self.budget, most))
                return
            self.budget.reserve(most)
            task = asyncio.create_task(self._ask(exchange, job, most))
            self.flying.add(task)
            task.add_done_callback(self._landed)

    async def _ask(self, exchange: Exchange, job: Job, most: Decimal) -> None:
        self.tally.requests += 1
        outcome = await exchange(job, most)
        self.budget.settle(most, cost=outcome.cost, lost=outcome.lost)
        self.tally.ended(outcome.verdict, outcome.output_tokens)
        others, now = sum(not task.done() for task in self.flying) - 1, time.monotonic()
        if not outcome.problem:
            self.limit.answered(outcome.latency_s, others)
            self._answered_at = now
        elif outcome.overload:
            self.limit.refused(others, now, outcome.retry_after_s)
        elif outcome.verdict.cause != "refused":
            self.limit.failed(others, now)
        self._problem = outcome.problem or self._problem
        self._reached |= outcome.reached
        job.attempt += 1
        if outcome.verdict.action == "stop":
            self._stop(CollectionStopped(outcome.verdict.cause, f"the provider says: {outcome.problem}"))
        elif outcome.verdict.action == "again":
            self._again(job, outcome)

    def _again(self, job: Job, outcome: Outcome) -> None:
        job.tries[outcome.verdict.cause] += 1
        after_s = outcome.retry_after_s
        wait_s = backoff(job.tries.total(), self._base_s) if after_s is None else held(after_s)
        self._queue.put(job, time.monotonic() + wait_s)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self.flying.discard(task)
        self._ended.set()
        if not task.cancelled() and (error := task.exception()):
            self._crash = self._crash or error

    async def _something_happens(self) -> None:
        """A call ended, or it is time to look at the clock."""
        self._ended.clear()
        try:
            async with asyncio.timeout(TICK_S):
                await self._ended.wait()
        except TimeoutError:
            return

    async def _abandon(self) -> None:
        """Only after a second Ctrl-C, or a bug, is anything still in flight here."""
        for task in self.flying:
            task.cancel()
        await asyncio.gather(*self.flying, return_exceptions=True)
