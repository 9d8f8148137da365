"""One call, from the line that says it is sent to the line that says how it ended."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from chainforge.config.collector import CollectorSettings
from chainforge.hookspecs import ApiClient, ApiTeacher
from chainforge.providers.calls import Call, CallFailed
from chainforge.providers.prices import FREE
from chainforge.teachers import record
from chainforge.teachers.journal import Journal
from chainforge.teachers.queue import Job
from chainforge.teachers.seen import is_possible
from chainforge.teachers.verdict import Verdict, on_answer, on_failure, refusal_of

OVERLOAD = (429, 503, 529)  # the last is Anthropic's


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended. In USD, `cost` is what its answer costs, `lost` the most that was paid besides.

    `latency_s` and `output_tokens` are about an answer, the last four about a call that failed; `reached` is
    False where there was no connection at all.
    """

    verdict: Verdict
    cost: Decimal = Decimal(0)
    lost: Decimal = Decimal(0)
    latency_s: float = 0.0
    output_tokens: int = 0
    problem: str = ""
    overload: bool = False
    retry_after_s: float | None = None
    reached: bool = True


@dataclass(frozen=True, slots=True)
class Exchange:
    """What every call of a run has in common."""

    teacher: ApiTeacher
    client: ApiClient
    journal: Journal
    settings: CollectorSettings
    retry_truncated: bool
    on_text: Callable[[int], None]
    its_own: Callable[[Job, str], bool]  # whether a question alone is refused
    passed_over: Callable[[Job], bool]  # whether one is told to wait again and again while others are not

    async def __call__(self, job: Job, most: Decimal) -> Outcome:
        """Ask once. `most` is what that can cost."""
        question, attempt, job.landed = job.question, job.attempt, False
        about, sent = record.about(question, attempt), datetime.now(UTC)
        await self.journal.write(record.sent(about, sent, most))
        call = Call(
            messages=question.messages,
            label=question.label(attempt),
            seed=question.own_seed,
            max_tokens=tokens_for(self.teacher, job),
            on_text=self.on_text if self.settings.stream else None,
        )
        start = time.monotonic()
        try:
            async with asyncio.timeout(self.settings.deadline_s):
                answer = await self.client.ask(call)
        except (CallFailed, TimeoutError) as failure:
            return await self._failed(job, about, most, failure)
        latency_s, job.landed = time.monotonic() - start, True
        try:
            reply = self.teacher.read(answer)
        except Exception as bug:  # of the plugin: the run ends, but what was paid for is kept
            unread = CallFailed(f"teacher.read raised {bug!r}", partial=answer)
            await self.journal.write(record.failed(about, unread, Verdict("stop", "failed")))
            raise
        thinks, again = self.teacher.thinks, self.retry_truncated
        verdict = on_answer(reply, job.tries, thinks=thinks, retry_truncated=again)
        prices = self.teacher.prices or FREE
        cost = prices.cost(reply.usage, window := prices.window(sent))
        beyond = Decimal(0) if is_possible(reply, question.messages) else max(most - cost, Decimal(0))
        line = record.answer(
            about, sent, reply, answer, cost=cost, beyond=beyond, window=window, verdict=verdict
        )
        more = {"messages": question.messages, "max_tokens": call.max_tokens}
        await self.journal.write(line | more)
        tokens = reply.usage.output
        return Outcome(verdict=verdict, cost=cost, lost=beyond, latency_s=latency_s, output_tokens=tokens)

    async def _failed(
        self, job: Job, about: record.About, most: Decimal, failure: CallFailed | TimeoutError
    ) -> Outcome:
        if isinstance(failure, TimeoutError):
            verdict = on_failure(failure, job.tries)
            failure = CallFailed(f"no answer within {self.settings.deadline_s:g} s")
        else:
            own = self.its_own(job, refusal_of(failure))
            passed = failure.status == 429 and self.passed_over(job)
            verdict = on_failure(failure, job.tries, its_own=own, passed=passed)
        job.landed = True
        await self.journal.write(record.failed(about, failure, verdict))
        return Outcome(
            verdict=verdict,
            lost=most if failure.billed else Decimal(0),
            problem=str(failure),
            overload=failure.status in OVERLOAD,
            retry_after_s=failure.retry_after,
            reached=failure.billed or failure.status is not None,
        )


def tokens_for(teacher: ApiTeacher, job: Job) -> int:
    """Twice as many where an answer was cut off and is asked for once more."""
    return teacher.max_tokens * (2 if job.tries["truncated"] else 1)
