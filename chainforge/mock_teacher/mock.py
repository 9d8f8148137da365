"""A mock teacher: what it is made of, and what each request gets."""

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from chainforge.errors import ChainForgeError
from chainforge.hookspecs import Teacher
from chainforge.mock_teacher.dialects import ANTHROPIC, DIALECTS, Dialect
from chainforge.mock_teacher.draft import CHARACTERS_PER_TOKEN, Draft, count_prompt
from chainforge.mock_teacher.faults import Fault, adapt
from chainforge.mock_teacher.request import Label, Refusal, Request, make_digest
from chainforge.mock_teacher.response import Response, Scene, make_json, make_stream
from chainforge.mock_teacher.script import FaultScript
from chainforge.providers.prices import Prices
from chainforge.records import Prompt, Trace

PRICES = Prices(table="mock", hit=Decimal("0.003"), miss=Decimal("0.15"), output=Decimal("0.60"))
FILLER_SIGMA = 0.6  # of the logarithm of the length


@dataclass(frozen=True, kw_only=True)
class MockTeacher:
    """A teacher to be served.

    `teachers` are asked in turn; what none of them can read gets filler of about `filler_tokens`. Without a
    `key`, any is accepted, though one must be sent. An answer takes `latency_s`, and a stream `tokens_per_s`
    from then on. Above `cap` requests at a time or `rpm` a minute, the next is refused at once, with
    `retry_after_s` if given. With `cache`, a system message that opens a conversation is billed as found in
    the cache. `ledger` is a file for a line per request.
    """

    teachers: Sequence[Teacher] = ()
    dialect: str = "deepseek"
    filler_tokens: int = 600
    faults: FaultScript = field(default_factory=FaultScript)
    prices: Prices = PRICES
    key: str | None = None
    latency_s: float = 0.0
    tokens_per_s: float | None = None
    cap: int | None = None
    rpm: int | None = None
    retry_after_s: float | None = None
    cache: bool = True
    ledger: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """What a request gets; `draft` is what was generated and is billed, None where nothing was."""

    response: Response
    label: Label | None = None
    fault: Fault | None = None
    draft: Draft | None = None

    @property
    def whole(self) -> bool:
        """Whether it is an answer with choices, finish reason and usage, once it arrives to its end."""
        return self.draft is not None and (self.fault is None or self.fault.whole)


def deal(mock: MockTeacher, request: Request, label: Label, dialect: Dialect, number: int) -> Deal:
    """What the server's `number`-th request gets: its answer, or its fault. Raises Refusal."""
    script = mock.faults
    drawn = script.choose(label, number)
    fault = adapt(drawn, stream=request.stream) if drawn else None
    draft = write_draft(mock, request, label)
    if fault and fault.spoil:
        draft = fault.spoil(draft)
    if fault and fault.dialect and dialect is not ANTHROPIC:
        dialect = DIALECTS[fault.dialect]
    if fault and fault.status != 200:
        response = make_json(dialect.write_error(fault.status, fault.message), fault.status)
    elif request.stream:
        response = make_stream(dialect.write_events(draft, with_usage=request.with_usage), mock.tokens_per_s)
    else:
        response = make_json(dialect.write_body(draft))
    if fault and fault.wreck:
        scene = Scene(
            retry_after_s=script.retry_after_s,
            blank_s=script.blank_s,
            drip_s=script.drip_s,
            error=dialect.write_error(500, "upstream failed"),
            error_event=dialect.write_error_event("upstream failed"),
        )
        response = fault.wreck(response, scene)
    billed = draft if fault is None or fault.billed else None
    return Deal(response=response, label=label, fault=fault, draft=billed)


def write_draft(mock: MockTeacher, request: Request, label: Label) -> Draft:
    """The answer as it should be. Raises Refusal with 500 if a teacher breaks."""
    trace = answer(mock, request, label)
    name = f"{label.seed}/{label.prompt}/{label.sample}/{request.model}"
    usage = count_prompt(request.messages, cache=mock.cache)
    draft = Draft(id=f"mock-{make_digest(name.encode())}", model=request.model, usage=usage)
    return draft.say(trace.reasoning, trace.content, trace.finish).truncate(request.max_tokens)


def answer(mock: MockTeacher, request: Request, label: Label) -> Trace:
    """The trace that a teacher in the process would give for this seed, prompt and sample, or else filler.

    The last message of the user is the question. Raises Refusal with 500 if a teacher breaks.
    """
    question = next(message for message in reversed(request.messages) if message["role"] == "user")
    prompt = Prompt(label.prompt, "mock", (question,))
    for teacher in mock.teachers:
        try:
            traces = teacher.generate([prompt], n=label.sample + 1, seed=label.seed)
            return deque(traces, maxlen=1).pop()
        except ChainForgeError:
            continue  # it cannot read this one
        except Exception as error:
            raise Refusal(500, f"{type(teacher).__name__} failed: {type(error).__name__}: {error}") from error
    rng = random.Random(f"{label.seed}:{label.prompt}:{label.sample}")
    return write_filler(label.prompt, mock.filler_tokens, rng)


def write_filler(prompt_id: str, median_tokens: int, rng: random.Random) -> Trace:
    """Sums of random numbers as a chain of thought, of log-normal length, and the last sum as the answer.

    For rehearsals, where only the length of an answer matters.
    """
    length = round(median_tokens * math.exp(rng.gauss(0, FILLER_SIGMA)))
    lines, written, total = ["Let me think about this step by step."], 38, rng.randrange(100)
    while written < length * CHARACTERS_PER_TOKEN:
        more = rng.randrange(1, 1000)
        lines.append(f"Adding {more} to {total} gives {total + more}, and that is worth a second look.")
        total = (total + more) % 10_000
        written += len(lines[-1]) + 1
    reasoning = "\n".join(lines)[: max(1, length) * CHARACTERS_PER_TOKEN]
    return Trace(prompt_id, reasoning, f"The answer is {total}.", "stop", "filler")
