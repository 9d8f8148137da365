"""Anthropic's stream, without a server: what is no answer, what was billed, and that no key is kept."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainforge as cf
from chainforge.plugins import load_plugins
from chainforge.teachers.verdict import on_failure

KEY = "sk-ant-3141592653589793"
TEACHER = load_plugins(Path(__file__).resolve().parents[2] / "plugins").pick("teachers", "anthropic")
Handler = Callable[[httpx2.Request], httpx2.Response]


def delta(index: int, kind: str, text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": f"{kind}_delta", kind: text}}


def block(index: int, kind: str) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, kind: ""}}


BEGUN = {"id": "1", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": BEGUN | {"usage": {"input_tokens": 9, "output_tokens": 1}}},
    block(0, "thinking"),
    delta(0, "thinking", f"the key is {KEY[:9]}"),
    {"type": "ping"},
    delta(0, "thinking", f"{KEY[9:]}, 6*7"),
    {"type": "content_block_stop", "index": 0},
    block(1, "text"),
    delta(1, "text", "4"),
    delta(1, "text", "2"),
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
    {"type": "message_stop"},
]
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": f"not now, {KEY}"}}


def stream(*events: Any) -> Handler:
    lines = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    return says(200, "".join(lines), **{"content-type": "text/event-stream"})


def says(status: int, text: str = "", **headers: str) -> Handler:
    return lambda request: httpx2.Response(status, text=text, headers=headers)


def ask(handler: Handler, *messages: cf.Message, on_text: Callable[[int], None] | None = None) -> Any:
    """One call, to a transport instead of a server."""
    import anthropic

    teacher = TEACHER.component(model="m")

    async def once() -> Any:
        http = anthropic.DefaultAsyncHttpxClient(transport=httpx2.MockTransport(handler))
        async with anthropic.AsyncAnthropic(
            api_key=KEY, base_url="http://toy.test", max_retries=0, http_client=http
        ) as sdk:
            asked = messages or (cf.Message(role="user", content="6*7?"),)
            call = cf.Call(messages=asked, label="17/p0/0/0", seed=7, max_tokens=99, on_text=on_text)
            return await TEACHER.module.Client(teacher, sdk, KEY).ask(call)

    return asyncio.run(once())


def failure(handler: Handler) -> cf.CallFailed:
    with pytest.raises(cf.CallFailed) as caught:
        ask(handler)
    assert KEY not in repr(caught.value) + json.dumps(caught.value.partial)
    return caught.value


def test_a_stream_is_the_message_that_it_is_of_without_the_key() -> None:
    came: list[int] = []
    said = ask(stream(*EVENTS), on_text=came.append)
    assert said["usage"] == {"input_tokens": 9, "output_tokens": 7}
    reply = TEACHER.component(model="m").read(said)
    assert (reply.reasoning, reply.content, reply.finish) == ("the key is [key], 6*7", "42", "stop")
    assert sum(came) == len(f"the key is {KEY}, 6*742")


@pytest.mark.parametrize("cut", range(len(EVENTS) - 1))
@pytest.mark.parametrize("ending", ["end", "error", "reset", "bad"])
def test_wherever_a_stream_breaks_it_is_asked_again_and_what_came_is_kept(cut: int, ending: str) -> None:
    class Resets(httpx2.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield stream(*EVENTS[:cut])(httpx2.Request("POST", "http://toy.test")).content
            raise httpx2.ReadError("connection reset")

    def resets(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, stream=Resets(), headers={"content-type": "text/event-stream"})

    ends = {"end": [], "error": [OVERLOADED], "bad": [{"type": "message_delta", "delta": 7}]}
    broke = failure(resets if ending == "reset" else stream(*EVENTS[:cut], *ends[ending]))
    refused = ending == "error" and cut == 0  # before any message began
    assert (broke.status, broke.billed) == ((503, False) if refused else (None, True))
    assert on_failure(broke, {}).action == "again"
    assert bool(broke.partial) == (cut >= 2)
    if cut >= 5:
        assert broke.partial
        assert broke.partial["content"][0]["thinking"] == "the key is [key], 6*7"


@pytest.mark.parametrize("told", [None, {}, 7, {"output_tokens": None}, {"output_tokens": "many"}])
def test_an_answer_without_usage_is_whole_and_what_is_not_said_is_0(told: Any) -> None:
    ending = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": told}
    reply = TEACHER.component(model="m").read(ask(stream(*EVENTS[:-2], ending, EVENTS[-1])))
    assert (reply.content, reply.finish, reply.usage) == ("42", "stop", cf.Usage(hit=0, miss=9, output=0))


@pytest.mark.parametrize("status", [304, 307])
def test_a_redirect_that_leads_nowhere_is_a_refusal(status: int) -> None:
    assert failure(says(status, "")).status == status


def test_a_body_that_is_no_stream_is_kept_as_it_came() -> None:
    text = "<html>" + "x" * 500 + KEY
    broke = failure(says(200, text, **{"content-type": "text/html"}))
    assert broke.raw_text == text.replace(KEY, "[key]")


@pytest.mark.slow
@given(st.lists(st.integers(0, len(EVENTS) - 1), max_size=12))
def test_events_in_any_order_are_an_answer_or_a_failure(order: list[int]) -> None:
    with suppress(cf.CallFailed):
        TEACHER.component(model="m").read(ask(stream(*(EVENTS[n] for n in order))))


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"type": "error"}', "<html>busy</html>"])
@pytest.mark.parametrize("kind", ["application/json", "text/html", "text/event-stream"])
def test_a_200_that_is_no_stream_is_a_failure_that_may_have_been_billed(text: str, kind: str) -> None:
    broke = failure(says(200, text, **{"content-type": kind}))
    assert (broke.status, broke.billed, broke.partial) == (None, True, None)
    assert text in str(broke) or kind == "text/event-stream"


@pytest.mark.parametrize(("status", "billed"), [(401, False), (429, False), (504, True), (529, False)])
def test_a_refusal_says_what_the_provider_said(status: int, billed: bool) -> None:
    refused = failure(says(status, json.dumps(OVERLOADED), **{"retry-after": "7"}))
    assert (refused.status, refused.billed, refused.retry_after) == (status, billed, 7)
    assert "not now, [key]" in str(refused)


@pytest.mark.parametrize(("error", "billed"), [(httpx2.ConnectError, False), (httpx2.ReadError, True)])
def test_only_a_connection_that_never_was_is_surely_free(error: Any, billed: bool) -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        raise error(f"no luck with {KEY}", request=request)

    broke = failure(handler)
    assert (broke.status, broke.billed) == (None, billed)


def test_turns_in_which_an_assistant_only_thought_are_not_sent() -> None:
    seen: list[Any] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(json.loads(request.content))
        return stream(*EVENTS)(request)

    turns = [("system", "be brief"), ("user", "6*7?"), ("assistant", ""), ("user", "well?")]
    ask(handler, *(cf.Message(role=role, content=text) for role, text in turns))
    assert seen[0]["system"] == "be brief"
    assert seen[0]["messages"] == [{"role": "user", "content": text} for text in ("6*7?", "well?")]
