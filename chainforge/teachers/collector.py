"""Ask a teacher everything once: as many calls at a time as it takes, no answer lost, no budget passed."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from chainforge.calls import Call, CallFailed
from chainforge.config.collector import CollectorSettings
from chainforge.hookspecs import ApiClient, ApiTeacher
from chainforge.prices import FREE
from chainforge.run.stopping import Stopping
from chainforge.teachers import record
from chainforge.teachers.budget import Budget
from chainforge.teachers.journal import Journal
from chainforge.teachers.limit import Limit, backoff
from chainforge.teachers.paid import Paid
from chainforge.teachers.question import Question
from chainforge.teachers.queue import Job, Queue
from chainforge.teachers.stops import CollectionStopped, budget_reached, hopeless
from chainforge.teachers.tally import Tally
from chainforge.teachers.verdict import Verdict, on_answer, on_failure

TICK_S = 0.1
OVERLOAD = (429, 503)


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
        watch: Callable[["Collector"], None] = lambda _: None,
        base_s: float = 1.0,
    ) -> None:
        cap = settings.budget_usd
        self.settings = settings
        self.limit = Limit(settings.concurrency, base_s)
        self.budget = Budget(
            Decimal(str(cap)) if isinstance(cap, float | int) else None, paid.spent, paid.possibly
        )
        self.tally = Tally(0)
        self.flying: set[asyncio.Task[None]] = set()
        self.stopped: CollectionStopped | None = None
        self._teacher, self._journal, self._paid = teacher, journal, paid
        self._prices = teacher.prices or FREE
        self._stopping, self._watch, self._base_s = stopping, watch, base_s
        self._ended = asyncio.Event()
        self._answered_at = time.monotonic()
        self._last_failure = ""
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
            try:
                while self.flying or (self._queue and not self._over()):
                    if not self._over():
                        self._send(client)
                    self._watch(self)
                    await self._something_happens()
            finally:
                await self._abandon()
        if self._crash:
            raise self._crash
        if self.stopped:
            raise self.stopped

    def _over(self) -> bool:
        """Whether to send nothing more, and only wait for what is in flight."""
        silent_s = time.monotonic() - self._answered_at
        if reason := self._stopping.reason:
            self._stop(CollectionStopped("signal", f"stopped ({reason})"))
        elif self.limit.bad_in_a_row and silent_s > self.settings.deadline_s:
            problem = f"no answer for {silent_s:.0f} s, in spite of asking again: {self._last_failure}"
            self._stop(CollectionStopped("outage", problem))
        elif reason_to_stop := hopeless(self.tally, self._last_failure):
            self._stop(reason_to_stop)
        return bool(self.stopped or self._crash)

    def _stop(self, why: CollectionStopped) -> None:
        self.stopped = self.stopped or why

    def _send(self, client: ApiClient) -> None:
        """Send what is due, as far as the limit, the budget and the hour allow."""
        now = time.monotonic()
        self.tally.waiting_for = ""
        if self.settings.off_peak_only and self._prices.window(datetime.now(UTC)) == "peak":
            self.tally.waiting_for = "off-peak hours"
            self._answered_at = now
            return
        while self.limit.room(len(self.flying), now) > 0 and (job := self._queue.first(now)):
            most = self._prices.most(job.question.messages, self._tokens(job))
            if not self.budget.fits(most):
                self.tally.waiting_for = "the budget: calls in flight may use it up"
                if not self.flying:
                    assert self.budget.cap is not None
                    self._stop(budget_reached(self.budget.cap, self.budget.spent, self.budget.lost, most))
                return
            self.budget.reserve(most)
            task = asyncio.create_task(self._ask(client, self._queue.pop(), most))
            self.flying.add(task)
            task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self.flying.discard(task)
        self._ended.set()
        if not task.cancelled() and (error := task.exception()):
            self._crash = self._crash or error

    async def _something_happens(self) -> None:
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

    async def _ask(self, client: ApiClient, job: Job, most: Decimal) -> None:
        """One call, from the line that says it is sent to the line that says how it ended."""
        attempt, job.attempt = job.attempt, job.attempt + 1
        about = record.about(job.question, attempt)
        sent = datetime.now(UTC)
        await self._journal.write(record.sent(about, sent, most))
        self.tally.requests += 1
        call = Call(
            messages=job.question.messages,
            label=job.question.label(attempt),
            seed=job.question.own_seed,
            max_tokens=self._tokens(job),
            on_text=self._text_came if self.settings.stream else None,
        )
        start = time.monotonic()
        try:
            async with asyncio.timeout(self.settings.deadline_s):
                answer = await client.ask(call)
        except (CallFailed, TimeoutError) as failure:
            await self._failed(job, about, most, failure)
        else:
            self.limit.answered(time.monotonic() - start, len(self.flying) - 1)
            await self._answered(job, about, most, sent, answer)

    async def _answered(
        self, job: Job, about: record.About, most: Decimal, sent: datetime, answer: Mapping[str, Any]
    ) -> None:
        reply = self._teacher.read(answer)
        verdict = on_answer(reply, job.tries, retry_truncated=self.settings.retry_truncated)
        cost = self._prices.cost(reply.usage, window := self._prices.window(sent))
        final = verdict.action == "keep"
        line = record.answer(about, sent, reply, answer, cost=cost, window=window, verdict=verdict)
        await self._journal.write(line | {"messages": job.question.messages})
        self.budget.settle(most, cost=cost)
        self.tally.answered(reply.usage.output, final=final)
        self.tally.causes[verdict.cause] += 1
        self._answered_at = time.monotonic()
        if not final:
            self._again(job, verdict)

    async def _failed(
        self, job: Job, about: record.About, most: Decimal, failure: CallFailed | TimeoutError
    ) -> None:
        verdict = on_failure(failure, job.tries)
        billed = failure.billed if isinstance(failure, CallFailed) else True
        self._last_failure = str(failure) or f"no answer within {self.settings.deadline_s:g} s"
        await self._journal.write(record.failed(about, failure, self._last_failure, billed, verdict))
        self.budget.settle(most, lost=most if billed else Decimal(0))
        self.tally.causes[verdict.cause] += 1
        now, others = time.monotonic(), len(self.flying) - 1
        if isinstance(failure, CallFailed) and failure.status in OVERLOAD:
            self.limit.refused(others, now, failure.retry_after)
        elif verdict.cause != "refused":
            self.limit.failed(others, now)
        match verdict.action:
            case "again":
                self._again(job, verdict, getattr(failure, "retry_after", None))
            case "skip":
                self.tally.skipped += 1
            case _:
                self._stop(CollectionStopped(verdict.cause, f"the provider says: {self._last_failure}"))

    def _again(self, job: Job, verdict: Verdict, after_s: float | None = None) -> None:
        job.tries[verdict.cause] += 1
        self.tally.retries[verdict.cause] += 1
        wait = backoff(job.tries.total(), self._base_s) if after_s is None else after_s
        self._queue.put(job, time.monotonic() + wait)

    def _tokens(self, job: Job) -> int:
        return self._teacher.max_tokens * (2 if job.tries["truncated"] else 1)

    def _text_came(self, characters: int) -> None:
        self.tally.characters += characters
