"""Ask a teacher everything once: as many calls at a time as it takes, no answer lost, no budget passed."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from chainforge.config.collector import CollectorSettings
from chainforge.hookspecs import ApiTeacher
from chainforge.providers.prices import FREE
from chainforge.run.stopping import Stopping
from chainforge.teachers import stops
from chainforge.teachers.agenda import agenda
from chainforge.teachers.budget import Budget
from chainforge.teachers.exchange import Exchange, Outcome, tokens_for
from chainforge.teachers.journal import Journal
from chainforge.teachers.limit import OUTAGE, Limit, backoff, bound_wait
from chainforge.teachers.paid import Paid
from chainforge.teachers.question import Question
from chainforge.teachers.queue import Job, Queue
from chainforge.teachers.refusals import Refusals
from chainforge.teachers.stops import CollectionStopped
from chainforge.teachers.tally import Tally
from chainforge.teachers.verdict import LAST

TICK_S = 0.1


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
        self.flying: dict[asyncio.Task[None], tuple[Job, Decimal]] = {}  # with the most that each can cost
        self.stopped: CollectionStopped | None = None
        self._teacher, self._journal, self._paid = teacher, journal, paid
        self.priced = teacher.prices is not None
        self._prices = teacher.prices or FREE
        self._stopping, self._watch, self._base_s = stopping, watch, base_s
        self._retry_truncated = retry_truncated
        self._ended = asyncio.Event()
        self._answered_at = time.monotonic()
        self._reached = False
        self._crash: BaseException | None = None

    async def collect(self, questions: Sequence[Question]) -> None:
        """Return when every question has its answer or was skipped.

        Raises CollectionStopped where that cannot be, once the calls in flight are over.
        """
        plan = agenda(questions, self._paid, self.settings)
        self._queue = Queue(plan.first, plan.last)
        self._refusals = Refusals(plan.total, known=plan.kept > 0)
        self.tally = Tally(plan.total, kept=plan.kept, left_out=plan.left_out)
        if not self._queue:
            return
        async with self._teacher.client(connections=self.settings.concurrency) as client:
            exchange = Exchange(
                *(self._teacher, client, self._journal, self.settings, self._retry_truncated),
                *(self.tally.count_text, self._refusals.its_own, self._passed_over),
            )
            try:
                while (goes_on := self._goes_on() and bool(self._queue)) or self.flying:
                    if self._stopping.at_once:
                        break
                    if goes_on:
                        self._send(exchange)
                    self._watch(self)
                    await self._something_happens()
            finally:
                await self._abandon()
        if ending := self._crash or self.stopped or stops.fruitless(self.tally):
            raise ending

    def _goes_on(self) -> bool:
        """Whether to send more, or only to wait for what is in flight."""
        why: CollectionStopped | None = None
        if self._queue and (reason := self._stopping.reason):
            why = CollectionStopped("signal", f"stopped ({reason})")
        elif whom := self._refusals.everybody(len(self.flying)):
            why = stops.refused(whom, self.tally)
        self.stopped = self.stopped or why or self._silence() or stops.hopeless(self.tally, len(self.flying))
        return not (self.stopped or self._crash)

    def _silence(self) -> CollectionStopped | None:
        silent_s = time.monotonic() - self._answered_at
        gone = self.limit.bad_in_a_row >= OUTAGE
        return (None if self._reached else stops.unreached(self.tally, silent_s)) or (
            stops.silence(self.tally, silent_s, self.settings.deadline_s) if gone else None
        )

    def _send(self, exchange: Exchange) -> None:
        """Send what is due, as far as the limit, the budget and the hour allow."""
        now = time.monotonic()
        self.tally.waiting_for = ""
        if self.settings.off_peak_only and self._prices.window(datetime.now(UTC)) == "peak":
            self.tally.waiting_for = "off-peak hours"
            self._answered_at = now
            return
        while self.limit.room(len(self.flying), now) > 0 and (job := self._next(now)):
            most = self._prices.most(job.question.messages, tokens_for(self._teacher, job))
            if not self.budget.fits(most):
                self._queue.put(job, now)
                self.tally.waiting_for = "the budget: the calls in flight may use it up"
                if not self.flying:
                    self.stopped = self.stopped or stops.budget_reached(self.budget, most)
                return
            self.budget.reserve(most)
            self._refusals.note_sent(job)
            task = asyncio.create_task(self._ask(exchange, job, most))
            self.flying[task] = (job, most)
            task.add_done_callback(self._landed)

    def _next(self, now: float) -> Job | None:
        if self._refusals.held:
            self.tally.waiting_for = "the calls in flight: the newest were all refused"
            return None
        return self._queue.pop(now, idle=not self.flying, far=self._refusals.doubtful)

    async def _ask(self, exchange: Exchange, job: Job, most: Decimal) -> None:
        self.tally.requests += 1
        outcome = await exchange(job, most)
        self.budget.settle(most, cost=outcome.cost, lost=outcome.lost)
        self.tally.count(outcome.verdict, outcome.output_tokens, outcome.problem)
        others, now, cause = self._others(), time.monotonic(), outcome.verdict.cause
        if not outcome.problem:
            self.limit.note_answer(outcome.latency_s, others)
            self._refusals.note_answer(job)
            self._answered_at = now
        elif outcome.overload:
            self.limit.note_refusal(others, now, outcome.retry_after_s)
        elif cause in LAST or cause == "refused":
            self._refusals.note_refusal(job, cause, outcome.problem)
        else:
            self.limit.note_failure(others, now)
        self._reached |= outcome.reached
        job.attempt += 1
        if outcome.verdict.action == "again":
            self._again(job, outcome)

    def _again(self, job: Job, outcome: Outcome) -> None:
        job.tries[outcome.verdict.cause] += 1
        if outcome.verdict.cause in LAST:
            self._queue.put_last(job)
            return
        wait_s = max(backoff(job.tries.total() - 1, self._base_s), bound_wait(outcome.retry_after_s or 0.0))
        self._queue.put(job, time.monotonic() + wait_s)

    def _passed_over(self, job: Job) -> bool:
        alone = self._queue.only_waits and not self._others()
        return self._refusals.is_passed_over(job, time.monotonic() - self._answered_at if alone else 0.0)

    def _others(self) -> int:
        return sum(not task.done() for task in self.flying) - 1

    def _landed(self, task: asyncio.Task[None]) -> None:
        self.flying.pop(task, None)
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
        lost = [most for job, most in self.flying.values() if not job.landed]
        if self._stopping.at_once and (self.flying or self._queue):
            self.stopped = stops.given_up(len(lost), sum(lost, Decimal(0)))
        for task in self.flying:
            task.cancel()
        await asyncio.gather(*self.flying, return_exceptions=True)
