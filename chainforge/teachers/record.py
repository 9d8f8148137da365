"""The lines of a journal. None holds a key: what a call failed with is text that a client has cleaned."""

import uuid
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from chainforge.providers.calls import CallFailed, Reply
from chainforge.providers.prices import Prices, Window
from chainforge.teachers.line import SCHEMA
from chainforge.teachers.question import Question
from chainforge.teachers.verdict import Verdict

About = Mapping[str, Any]
Line = dict[str, Any]


def run(teacher: Mapping[str, Any], identity: Mapping[str, Any], prices: Prices | None) -> Line:
    """Who asks, how and for how much: `teacher` is the plugin and its settings."""
    return {
        "kind": "run",
        "schema": SCHEMA,
        "run": uuid.uuid4().hex[:12],
        "at": stamp(datetime.now(UTC)),
        "teacher": dict(teacher),
        "identity": dict(identity),
        "price_table": prices.table if prices else None,
        "usd_per_million": prices_as_text(prices) if prices else None,
    }


def prices_as_text(prices: Prices) -> Line:
    """A price list, sums as text."""
    usd = {kind: str(getattr(prices, kind)) for kind in ("hit", "miss", "output", "peak_factor")}
    return usd | {"peak_hours": [list(hours) for hours in prices.peak_hours]}


def prices_of(run: Mapping[str, Any]) -> Prices | None:
    """The price list of a run; None where it has none, or is of schema 1."""
    usd = run.get("usd_per_million")
    if not usd:
        return None
    sums = {kind: Decimal(usd[kind]) for kind in ("hit", "miss", "output", "peak_factor")}
    hours = tuple((int(start), int(end)) for start, end in usd["peak_hours"])
    return Prices(table=run["price_table"], peak_hours=hours, **sums)


def about(question: Question, attempt: int) -> About:
    """Which call a line is about."""
    return {
        "fingerprint": question.fingerprint,
        "prompt_id": question.prompt_id,
        "sample": question.sample,
        "attempt": attempt,
    }


def sent(about: About, at: datetime, most: Decimal) -> Line:
    """A call that costs `most` at most is about to be sent."""
    return {"kind": "sent", **about, "at": stamp(at), "most_usd": str(most)}


def answer(
    about: About,
    sent_at: datetime,
    reply: Reply,
    raw: Mapping[str, Any],
    *,
    cost: Decimal,
    beyond: Decimal,
    window: Window,
    verdict: Verdict,
) -> Line:
    """What came back, as it came. It may have cost `beyond` more, where its usage cannot be true."""
    now = datetime.now(UTC)
    return {
        "kind": "answer",
        **about,
        "final": verdict.action == "keep",
        "cause": verdict.cause,
        "sent_at": stamp(sent_at),
        "at": stamp(now),
        "latency_s": round((now - sent_at).total_seconds(), 3),
        "model": reply.model,
        "finish": reply.finish,
        "reasoning_source": reply.source,
        "synthetic": reply.synthetic,
        "usage": asdict(reply.usage),
        "cost_usd": str(cost),
        **({"possibly_usd": str(beyond)} if beyond else {}),
        "price_window": window,
        "raw": dict(raw),
    }


def failed(about: About, failure: CallFailed, verdict: Verdict) -> Line:
    """A call that brought no answer, and whether it may have cost money."""
    return {
        "kind": "failed",
        **about,
        "final": verdict.action != "again",
        "cause": verdict.cause,
        "at": stamp(datetime.now(UTC)),
        "http_status": failure.status,
        "message": str(failure),
        "billed": failure.billed,
        "partial": failure.partial,
        "raw_text": failure.raw_text,
    }


def written_off(billed: Decimal) -> Line:
    """What was possibly paid until now cost only this much, in USD."""
    return {"kind": "written_off", "at": stamp(datetime.now(UTC)), "billed_usd": str(billed)}


def stamp(at: datetime) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
