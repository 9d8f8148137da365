"""A teacher behind an API that is not there: it answers by a script, and keeps a ledger of what it billed."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from chainforge.config.collector import CollectorSettings
from chainforge.providers.calls import Call, CallFailed, Reply, Usage
from chainforge.providers.openai_chat import read_chat
from chainforge.providers.prices import Prices
from chainforge.records import Prompt
from chainforge.teachers.answers import answer_all
from chainforge.teachers.journal import read_journal
from chainforge.teachers.paid import Paid, read_paid
from chainforge.teachers.question import Question, questions
from chainforge.teachers.stops import CollectionStopped

CHEAP = Prices(table="toy 2026", hit=Decimal("0.1"), miss=Decimal(1), output=Decimal(4))
HANGS = "hangs"
Step = Mapping[str, Any] | Exception | str  # an answer, what the client raises, or HANGS
ABOUT = {"plugin": "openai_compatible", "preset": "generic", "model": "toy-1", "base_url": "http://toy.test"}


def answer(
    content: str | None = "42", reasoning: str = "6*7=42", finish: str = "stop", output: int = 20
) -> dict[str, Any]:
    """An answer as DeepSeek writes it."""
    message = {"role": "assistant", "content": content, "reasoning_content": reasoning}
    return {
        "model": "toy-1-0809",
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": {"prompt_tokens": 10, "completion_tokens": output, "prompt_cache_hit_tokens": 4},
    }


def refusal(status: int, message: str = "", retry_after: float | None = None) -> CallFailed:
    """An HTTP error: nothing is billed."""
    return CallFailed(f"{status}: {message}", status=status, retry_after=retry_after, billed=False)


def broken(message: str = "connection reset", *, billed: bool = True, **partial: Any) -> CallFailed:
    """A connection or a body that broke."""
    return CallFailed(message, billed=billed, partial=partial or None)


RECOVERABLE: dict[str, Step] = {
    "408": refusal(408),
    "409": refusal(409),
    "429": refusal(429),
    "429 that says when": refusal(429, retry_after=3),
    "500": refusal(500),
    "502": refusal(502, "<html>"),
    "503": refusal(503),
    "reset": broken(),
    "no connection": broken(billed=False),
    "cut stream": broken("it was cut", choices=[]),
    "overloaded": answer("4", finish="insufficient_system_resource"),
    "no reasoning": answer(reasoning=""),
    "no content": answer(content=None),
    "hangs": HANGS,
}


@dataclass(kw_only=True)
class FakeTeacher:
    """An ApiTeacher and its client. `steps` are a prompt's first ones, by its id; then come good answers."""

    steps: Mapping[str, Sequence[Step]] = field(default_factory=dict)
    chance: Callable[[Call], Step | None] = lambda call: None  # for every other call
    latency_s: Callable[[], float] = lambda: 0.0
    cap: int | None = None  # calls at a time, beyond which it refuses with 429
    prices: Prices | None = CHEAP
    seeded: bool = False
    thinks: bool = True
    max_tokens: int = 100
    identity: Mapping[str, Any] = field(default_factory=lambda: {"provider": "toy", "model": "toy-1"})
    calls: list[Call] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)  # by prompt id and sample
    billed: Decimal = Decimal(0)
    flying: int = 0
    most_flying: int = 0
    refused: int = 0

    @asynccontextmanager
    async def client(self, *, connections: int) -> AsyncIterator["FakeTeacher"]:
        yield self

    def read(self, said: Mapping[str, Any]) -> Reply:
        return read_chat(said)

    async def ask(self, call: Call) -> Mapping[str, Any]:
        _, prompt_id, sample, _ = call.label.split("/")
        number = self.asked[f"{prompt_id}/{sample}"]
        self.asked[f"{prompt_id}/{sample}"] += 1
        self.calls.append(call)
        if self.cap is not None and self.flying >= self.cap:
            self.refused += 1
            await asyncio.sleep(0.02)
            raise refusal(429, "too many")
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            return await self._take(self._step(call, prompt_id, number))
        finally:
            self.flying -= 1

    def _step(self, call: Call, prompt_id: str, number: int) -> Step:
        scripted = self.steps.get(prompt_id, ())
        if number < len(scripted):
            return scripted[number]
        return self.chance(call) or answer(f"answer {call.label}")

    async def _take(self, step: Step) -> Mapping[str, Any]:
        await asyncio.sleep(self.latency_s())
        if step == HANGS:
            self._bill(Usage(0, 10, self.max_tokens))
            await asyncio.sleep(1e6)
        if isinstance(step, Exception):
            if not isinstance(step, CallFailed) or step.billed:
                self._bill(Usage(0, 10, random.randint(0, self.max_tokens)))
            raise step
        assert isinstance(step, Mapping)
        if "choices" in step:
            self._bill(self.read(step).usage)
        return step

    def _bill(self, usage: Usage) -> None:
        if self.prices:
            self.billed += self.prices.cost(usage, self.prices.window(datetime.now(UTC)))


def prompts(count: int, first: int = 0) -> list[Prompt]:
    """p0, p1, …: every one with a text of its own."""
    return [
        Prompt(f"p{n}", "toy", ({"role": "user", "content": f"What is {n} times 7?"},))
        for n in range(first, first + count)
    ]


def ask(
    teacher: FakeTeacher,
    asked: int | Iterable[Prompt],
    folder: Path,
    *,
    samples: int = 1,
    retry_truncated: bool = False,
    watch: Callable[[Any], None] = lambda _: None,
    base_s: float = 1.0,
    seed: int = 17,
    **settings: Any,
) -> Paid:
    """Collect answers into a journal, without a budget unless it is given."""
    return answer_all(
        teacher,
        made(teacher, asked, samples, seed),
        folder,
        CollectorSettings(**{"budget_usd": "none"} | settings),
        about=ABOUT,
        retry_truncated=retry_truncated,
        watch=watch,
        base_s=base_s,
    )


def made(
    teacher: FakeTeacher, asked: int | Iterable[Prompt], samples: int = 1, seed: int = 17
) -> list[Question]:
    """The questions about this many prompts, or about these."""
    return list(questions(teacher, prompts(asked) if isinstance(asked, int) else asked, samples, seed))


def lines(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The journal's records, of one kind or all."""
    return [dict(record) for _, record in read_journal(folder) if kind in (None, record["kind"])]


def stopped(code: int, *arguments: Any, **settings: Any) -> CollectionStopped:
    """The collection must stop with this exit code."""
    with pytest.raises(CollectionStopped) as caught:
        ask(*arguments, **settings)
    assert caught.value.exit_code == code
    return caught.value


def whole(folder: Path) -> None:
    """Every call of a journal has its end, and only one."""
    ends = Counter(
        (r["fingerprint"], r["attempt"]) for r in lines(folder) if r["kind"] in ("answer", "failed")
    )
    assert ends == Counter((r["fingerprint"], r["attempt"]) for r in lines(folder, "sent"))
    assert set(ends.values()) <= {1}
    assert read_paid(folder).flying == {}
