"""The same about Anthropic's protocol: what is the protocol's own is odd in ways of its own."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from odd_answers import bill, chunked, dumps, honest, mark
from odd_faults import HTTP, REFUSALS, Odd, Then
from odd_runs import alone, wrong
from odd_server import CLOSE, HANG, RESET, Asked, Said, Step, http

pytestmark = pytest.mark.usefixtures("quick")

Events = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-no-key-0000")


def messages(answer: Mapping[str, Any]) -> Events:
    """An honest answer, as this API streams it."""
    said, usage = answer["choices"][0]["message"], answer["usage"]
    begun = {
        "id": answer["id"],
        "type": "message",
        "role": "assistant",
        "model": answer["model"],
        "content": [],
    }
    begun |= {"stop_reason": None, "usage": {"input_tokens": usage["prompt_tokens"], "output_tokens": 1}}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    return [
        {"type": "message_start", "message": begun},
        *block(0, "thinking", said["reasoning_content"]),
        *block(1, "text", said["content"]),
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": usage["completion_tokens"]}},
        {"type": "message_stop"},
    ]


def block(index: int, kind: str, text: str) -> Events:
    half = len(text) // 2
    deltas = [{"type": f"{kind}_delta", kind: part} for part in (text[:half], text[half:])]
    return [
        {"type": "content_block_start", "index": index, "content_block": {"type": kind, kind: ""}},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def lines(said: Sequence[Any]) -> list[bytes]:
    return [b"event: %b\ndata: %b\n\n" % (kind(event).encode(), dumps(event)) for event in said]


def kind(event: Any) -> str:
    return str(event.get("type", "odd")) if isinstance(event, dict) else "odd"


def just(asked: Asked) -> Said:
    answer = honest(asked)
    return Said(steps=chunked(lines(messages(answer))), tokens=bill(answer), mark=mark(asked))


def events(name: str, then: Then, change: Callable[[Events], Sequence[Any]], **more: Any) -> Odd:
    """Other events."""
    return Odd(
        name=name, then=then, respond=lambda asked, answer: chunked(lines(change(messages(answer)))), **more
    )


def sent(name: str, then: Then, change: Callable[[list[bytes]], Sequence[Step]], **more: Any) -> Odd:
    """Other bytes."""
    return Odd(name=name, then=then, respond=lambda asked, answer: change(lines(messages(answer))), **more)


def among(*others: Any) -> Callable[[Events], Sequence[Any]]:
    """These in the middle."""
    return lambda said: [*said[:4], *others, *said[4:]]


def stops(word: Any, then: Then, code: int = 0) -> Odd:
    def change(said: Events) -> Events:
        said[-2]["delta"]["stop_reason"] = word
        return said

    return events(f"stop_reason_{word!r}", then, change, same=then != "kept", code=code)


def counts(name: str, start: Any, end: Any) -> Odd:
    """Another usage."""

    def change(said: Events) -> Events:
        said[0]["message"]["usage"], said[-2]["usage"] = start, end
        return said

    return events(f"usage_{name}", "answered", change)


def failing(kind: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": "no"}}


FREE = {"billed": False, "readable": False}
OWN = [
    *(stops(word, "answered") for word in ("stop_sequence", "STOP", "eos")),
    *(stops(word, "kept") for word in ("max_tokens", "refusal", "model_context_window_exceeded")),
    *(stops(word, "kept", 10) for word in ("zonk", "tool_use")),
    *(stops(word, "again") for word in (None, "")),
    counts("zero", {"input_tokens": 0, "output_tokens": 0}, {"output_tokens": 0}),
    counts("null", None, None),
    counts("absent_at_the_start", {}, {"output_tokens": 100}),
    counts("absent_at_the_end", {"input_tokens": 12, "output_tokens": 1}, None),
    counts("negative", {"input_tokens": -1}, {"output_tokens": -1}),
    counts("text", {"input_tokens": "many"}, {"output_tokens": "more"}),
    counts("huge", {"input_tokens": 12}, {"output_tokens": 2**60}),
    events("ping", "answered", among({"type": "ping"}), exact=True),
    events("unknown_event", "answered", among({"type": "zonk", "deep": [[[]]]}), exact=True),
    events("no_message_stop", "answered", lambda e: e[:-1], exact=True),
    events("null_event", "again", among(None)),
    events("list_event", "again", among([])),
    events("event_without_type", "again", among({"index": 0})),
    events("delta_null", "again", among({"type": "content_block_delta", "index": 0, "delta": None})),
    events(
        "delta_of_no_block",
        "again",
        among({"type": "content_block_delta", "index": 9, "delta": {"text": "x"}}),
    ),
    events("no_message_start", "again", lambda e: e[1:], readable=False),
    events(
        "message_null",
        "again",
        lambda e: [{"type": "message_start", "message": None}, *e[1:]],
        readable=False,
    ),
    events("cut_in_the_thought", "again", lambda e: e[:3]),
    events("cut_in_the_text", "again", lambda e: e[:7]),
    events("cut_before_the_end", "again", lambda e: e[:-2]),
    events("overloaded_at_once", "again", lambda e: [failing("overloaded_error")], **FREE),
    events("overloaded_in_the_middle", "again", lambda e: [*e[:4], failing("overloaded_error")]),
    events("api_error_in_the_middle", "again", lambda e: [*e[:4], failing("api_error")]),
    events("nothing", "again", lambda e: [], **FREE),
    sent("crlf", "answered", lambda e: chunked([x.replace(b"\n", b"\r\n") for x in e]), exact=True),
    sent("comments", "answered", lambda e: chunked([y for x in e for y in (b": wait\n\n", x)]), exact=True),
    sent("bom", "again", lambda e: chunked([b"\xef\xbb\xbf" + e[0], *e[1:]]), readable=False),
    sent("all_at_once", "answered", lambda e: chunked([b"".join(e)]), exact=True),
    sent("no_event_lines", "again", lambda e: chunked([x.partition(b"\n")[2] for x in e]), readable=False),
    sent(
        "broken_ping",
        "answered",
        lambda e: chunked([*e[:4], b"event: ping\ndata: {\n\n", *e[4:]]),
        exact=True,
    ),
    sent("html", "again", lambda e: [http(200, b"<h1>no</h1>", {"content-type": "text/html"})], **FREE),
    sent("reset", "again", lambda e: [*chunked(e[:4], b""), 0.05, RESET], readable=False),
    sent("close", "again", lambda e: [*chunked(e[:4], b""), CLOSE], readable=False),
    sent("hang", "again", lambda e: [*chunked(e[:4], b""), HANG], readable=False, silent=True),
]
LOST = [fault for fault in HTTP if not fault.billed]
ALL = [*OWN, *REFUSALS, *LOST]
SAMPLE = {"ping", "crlf", "cut_in_the_text", "stop_reason_'max_tokens'", "usage_zero", "403_this_prompt"}


def marks(fault: Odd, number: int) -> list[pytest.MarkDecorator]:
    """A sample is quick, one in three of the others is in `make test`, and all are in `make test-all`."""
    return [] if fault.name in SAMPLE else [pytest.mark.long if number % 3 else pytest.mark.slow]


@pytest.mark.dear
@pytest.mark.parametrize(
    "fault", [pytest.param(fault, id=fault.name, marks=marks(fault, n)) for n, fault in enumerate(ALL)]
)
def test_a_fault_alone_loses_nothing_and_is_paid_once(fault: Odd, tmp_path: Path) -> None:
    ended = alone(fault, "streamed", tmp_path, just, "anthropic")
    assert list(wrong(fault, ended)) == []
