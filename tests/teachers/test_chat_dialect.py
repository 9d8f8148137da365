"""OpenAI's chat API, without a server: what is no answer, what was billed, and what a refusal says."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import openai
import pytest
from fake_api import answer
from hypothesis import given, settings
from hypothesis import strategies as st

from chainforge.providers.calls import Call, CallFailed, Usage, seconds_of
from chainforge.providers.chat_answer import SYNTHETIC, add, defect, read_chat, read_usage
from chainforge.providers.openai_chat import LABEL, ChatApi, ChatClient
from chainforge.teachers.verdict import on_failure

KEY = "sk-3141592653589793"
MESSAGE = {"role": "user", "content": "6*7?"}
odd_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
Handler = Callable[[httpx2.Request], httpx2.Response]


def ask(handler: Handler, *, key: str = KEY, on_text: Callable[[int], None] | None = None, **api: Any) -> Any:
    """One call, to a transport instead of a server."""
    api = {"model": "toy-1", "parameters": {"temperature": 0.5}} | api

    async def once() -> Any:
        http = openai.DefaultAsyncHttpxClient(transport=httpx2.MockTransport(handler))
        async with openai.AsyncOpenAI(
            api_key=key, base_url="http://toy.test/v1", max_retries=0, http_client=http
        ) as sdk:
            client = ChatClient(ChatApi("http://toy.test/v1", key, **api), sdk)
            return await client.ask(
                Call(messages=(MESSAGE,), label="17/p0/0/0", seed=7, max_tokens=99, on_text=on_text)
            )

    return asyncio.run(once())


def says(status: int, text: str = "", **headers: str) -> Handler:
    return lambda request: httpx2.Response(status, text=text, headers=headers)


def failure(handler: Handler, **options: Any) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        ask(handler, **options)
    assert KEY not in repr(caught.value) + json.dumps(caught.value.partial)
    return caught.value


def stream(*chunks: Any, end: bool = True) -> Handler:
    """Server-sent events."""
    lines = [chunk if isinstance(chunk, str) else f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return says(200, "".join(lines) + "data: [DONE]\n\n" * end, **{"content-type": "text/event-stream"})


def piece(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"id": "1", "model": "toy-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (  # DeepSeek
            {
                "prompt_tokens": 10,
                "completion_tokens": 20,
                "prompt_cache_hit_tokens": 4,
                "prompt_cache_miss_tokens": 6,
                "completion_tokens_details": {"reasoning_tokens": 15},
            },
            Usage(hit=4, miss=6, output=20, reasoning=15),
        ),
        (  # OpenAI, OpenRouter
            {
                "prompt_tokens": 10,
                "completion_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 15},
            },
            Usage(hit=4, miss=6, output=20, reasoning=15),
        ),
        (  # vLLM
            {"prompt_tokens": 10, "total_tokens": 30, "completion_tokens": 20, "prompt_tokens_details": None},
            Usage(hit=0, miss=10, output=20),
        ),
        ({"prompt_tokens": 10, "completion_tokens": None}, Usage(hit=0, miss=10, output=0)),
        ({}, Usage(0, 0, 0)),
        ({"prompt_tokens": 10**400, "completion_tokens": float("nan")}, Usage(0, 0, 0)),
        ({"prompt_tokens": 3, "prompt_cache_hit_tokens": 5}, Usage(hit=3, miss=0, output=0)),
        (  # reasoning outside of the answer's tokens: more of it than of those, or the sum says so (xAI)
            {"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 15}},
            Usage(hit=0, miss=0, output=20, reasoning=15),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 20,
                "total_tokens": 45,
                "completion_tokens_details": {"reasoning_tokens": 15},
            },
            Usage(hit=0, miss=10, output=35, reasoning=15),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 25}, Usage(0, 10, 20)),
        (None, Usage(0, 0, 0)),
    ],
)
def test_usage_is_read_as_every_provider_counts(usage: dict[str, Any], read: Usage) -> None:
    assert read_usage(usage) == read


FIELDS = [
    "prompt_tokens",
    "completion_tokens",
    "prompt_cache_hit_tokens",
    "prompt_tokens_details",
    "completion_tokens_details",
    "total_tokens",
    "reasoning_tokens",
]


@pytest.mark.slow
@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(FIELDS), odd_json))
def test_odd_usage_is_no_reason_to_lose_an_answer(usage: dict[str, Any]) -> None:
    read = read_usage(usage)
    assert min(read.hit, read.miss, read.output, read.reasoning) >= 0


def test_a_whole_answer_has_no_defect() -> None:
    assert defect(answer()) is None
    assert defect(answer(None, "")) is None, "empty, but whole"


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (None, "not a JSON object"),
        ([], "not a JSON object"),
        ("<html>", "not a JSON object"),
        ({}, "without choices"),
        ({"choices": []}, "without choices"),
        ({"choices": None}, "without choices"),
        (answer() | {"error": {"message": "busy"}}, 'an error instead of an answer: {"message": "busy"}'),
        (
            answer() | {"choices": [{"message": {}, "finish_reason": None}]},
            "without finish_reason: it was cut",
        ),
        (answer() | {"choices": [{"message": {}}]}, "without finish_reason: it was cut"),
    ],
)
def test_what_is_no_whole_answer_is_told_so(said: Any, problem: str) -> None:
    assert problem in str(defect(said))


@pytest.mark.slow
@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["choices", "usage", "error", "model"]), odd_json))
def test_odd_json_is_either_a_defect_or_an_answer(changes: dict[str, Any]) -> None:
    said = answer() | changes
    if defect(said) is None:
        read_chat(said)


@pytest.mark.slow
@given(choice=st.dictionaries(st.sampled_from(["message", "finish_reason"]), odd_json))
def test_an_odd_choice_is_either_a_defect_or_an_answer(choice: dict[str, Any]) -> None:
    said = answer() | {"choices": [choice]}
    if defect(said) is None:
        assert isinstance(read_chat(said).content, str)


def test_the_mark_of_the_mock_is_seen() -> None:
    assert not read_chat(answer()).synthetic
    assert read_chat(answer() | {"system_fingerprint": SYNTHETIC}).synthetic


@pytest.mark.slow
@given(st.lists(st.dictionaries(st.sampled_from(["role", "content", "reasoning_content"]), st.text())))
def test_deltas_are_joined(deltas: list[dict[str, str]]) -> None:
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    came = sum(add(message, delta) for delta in deltas)
    for field in ("content", "reasoning_content"):
        assert message.get(field, "") == "".join(delta.get(field, "") for delta in deltas)
    assert came == len(message["content"]) + len(message.get("reasoning_content", ""))
    assert message["role"] == "assistant"


def test_details_are_joined_and_nothing_is_made_of_nothing() -> None:
    message: dict[str, Any] = {"content": ""}
    assert add(message, {"content": None, "reasoning_details": [{"text": "a"}], "tool_calls": None}) == 1
    assert add(message, {"reasoning_details": [{"text": "b"}]}) == 1
    assert message == {"content": "", "reasoning_details": [{"text": "a"}, {"text": "b"}]}


def test_a_request_says_all_and_only_what_it_should() -> None:
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json=answer())

    assert ask(handler) == answer()
    ask(handler, seeded=True)
    body = {"model": "toy-1", "messages": [MESSAGE], "temperature": 0.5, "max_tokens": 99}
    assert [json.loads(request.content) for request in seen] == [body, body | {"seed": 7}]
    assert seen[0].headers[LABEL] == "17/p0/0/0"
    assert seen[0].headers["authorization"] == f"Bearer {KEY}"


def test_the_limit_is_sent_by_the_name_that_the_settings_have() -> None:
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json=answer())

    ask(handler, parameters={"max_tokens": None, "max_completion_tokens": 99})
    sent = json.loads(seen[0].content)
    assert (sent.get("max_tokens"), sent.get("max_completion_tokens")) == (None, 99)


@pytest.mark.parametrize("removed", ["max_tokens", "temperature"])
def test_a_parameter_that_is_none_is_not_sent(removed: str) -> None:
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json=answer())

    ask(handler, parameters={"temperature": 0.5, "max_tokens": 99} | {removed: None})
    whole = {"model": "toy-1", "messages": [MESSAGE], "temperature": 0.5, "max_tokens": 99}
    assert json.loads(seen[0].content) == {name: value for name, value in whole.items() if name != removed}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("1e3", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct", None),
        ("\u00b2", None),
    ],
)
def test_retry_after_is_read_in_seconds(header: str, seconds: float | None) -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(429, headers=[(b"retry-after", header.encode("latin-1"))])

    refused = failure(handler)
    assert (refused.status, refused.retry_after, refused.billed) == (429, seconds, False)


@given(whole_s=st.integers(0, 10**6), at=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)))
def test_a_date_in_retry_after_asks_to_wait_until_then(whole_s: int, at: datetime) -> None:
    now = at.replace(microsecond=0, tzinfo=UTC)
    assert seconds_of(format_datetime(now + timedelta(seconds=whole_s), usegmt=True), now) == whole_s
    assert seconds_of(format_datetime(now - timedelta(seconds=whole_s), usegmt=True), now) == 0


@given(header=st.text() | st.text("0123456789:., +-GMTWedOct", max_size=40))
def test_whatever_retry_after_says_it_is_read_or_passed_over(header: str) -> None:
    waits_s = seconds_of(header, datetime.now(UTC))
    assert waits_s is None or waits_s >= 0


@pytest.mark.parametrize("status", [*range(400, 430), *range(499, 600)])
def test_a_server_that_broke_may_have_cost_money_and_one_that_turned_the_call_away_has_not(
    status: int,
) -> None:
    refused = failure(says(status, "no"))
    billed = status == 408 or (status >= 500 and status not in {503, 529})
    assert (refused.status, refused.billed) == (status, billed)


def test_a_paid_answer_that_lacks_its_end_is_a_failure_that_keeps_it() -> None:
    said = answer()
    del said["choices"][0]["finish_reason"]
    broke = failure(says(200, json.dumps(said)))
    assert broke.partial == said
    assert on_failure(broke, {}).cause == "cut"


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, "none", []])
def test_an_answer_without_usage_is_whole(usage: object) -> None:
    said = answer() | {"usage": usage}
    assert read_chat(ask(says(200, json.dumps(said)))).usage == Usage(0, 0, 0)
    del said["usage"]
    assert read_chat(ask(says(200, json.dumps(said)))).content == "42"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 429, "message": "slow down"}, 429),
        ({"code": "429"}, 429),
        ({"type": "rate_limit_error"}, 429),
        ({"code": "Throttling.RateQuota"}, 429),
        ({"type": "overloaded_error"}, 503),
        ({"code": 401, "message": "who are you"}, 401),
        ({"type": "invalid_request_error", "code": "invalid_api_key"}, 401),
        ({"code": 402}, 402),
        ({"code": "insufficient_quota"}, 402),
        ({"code": "model_not_found"}, 404),
        ({"type": "invalid_request_error", "code": None}, 400),
        ({"code": 502, "message": "upstream"}, 502),
        ({"code": 1302}, None),
        ({"code": 200}, None),
        ({"message": "it broke"}, None),
        ("it broke", None),
    ],
    ids=str,
)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_error_inside_a_200_counts_like_its_status(
    error: object, status: int | None, streamed: bool
) -> None:
    said = {"error": error}
    handler = stream(said) if streamed else says(200, json.dumps(said))
    broke = failure(handler, on_text=(lambda n: None) if streamed else None)
    assert broke.status == status
    assert broke.billed == (status in (None, 502))


def test_an_error_that_is_all_of_the_answer_counts_too() -> None:
    assert failure(says(200, '{"object": "error", "code": 400, "message": "too long"}')).status == 400


def test_a_quota_that_is_used_up_is_no_rush() -> None:
    error = {"error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "no money"}}
    assert failure(says(429, json.dumps(error))).status == 402
    assert failure(says(429, '{"error": {"code": "rate_limit_exceeded"}}')).status == 429


def test_samples_in_one_stream_are_never_merged() -> None:
    def of(index: int, finish: str | None = None, **delta: Any) -> dict[str, Any]:
        return {"id": "1", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}

    chunks = [
        of(1, content="se"),
        of(0, content="fi"),
        of(1, "length", content="cond"),
        of(0, "stop", content="rst"),
    ]
    said = ask(stream(*chunks, USAGE), on_text=lambda n: None)
    reply = read_chat(said)
    assert (reply.content, reply.finish) == ("first", "stop")
    assert [c["message"]["content"] for c in said["choices"]] == ["first", "second"]


def test_an_error_is_no_part_of_an_answer() -> None:
    broke = failure(says(200, '{"error": {"message": "busy"}}'))
    assert broke.partial is None
    assert on_failure(broke, {}).cause == "failed"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"error": {"message": "Insufficient\\n  Balance"}}', "402: Insufficient Balance"),
        ("<html><h1>402</h1></html>", "402: Payment Required"),
        ("", "402: Payment Required"),
        ('{"error": "no money"}', "402: "),
        ("[1]", "402: "),
        (f'{{"error": {{"message": "not with {KEY}"}}}}', "402: not with [key]"),
    ],
)
def test_a_refusal_says_what_the_provider_said_in_one_line_without_the_key(text: str, said: str) -> None:
    refused = failure(says(402, text))
    assert str(refused).startswith(said)
    assert "\n" not in str(refused)
    assert len(str(failure(says(402, json.dumps({"error": {"message": "x" * 9999}}))))) <= 500


@pytest.mark.parametrize("text", ["", "\n\n\n", "{", "<html>", '{"choices": [', '{"error": "busy"}', "null"])
def test_a_200_that_is_no_answer_is_a_failure_that_may_have_been_billed(text: str) -> None:
    broke = failure(says(200, text))
    assert (broke.status, broke.billed) == (None, True)


def test_blank_lines_before_an_answer_are_nothing() -> None:
    assert ask(says(200, "\n\n" * 50 + json.dumps(answer()))) == answer()


def test_an_answer_that_repeats_the_key_is_kept_without_it() -> None:
    said = ask(says(200, json.dumps(answer(f"your key is {KEY}"))))
    assert read_chat(said).content == "your key is [key]"


@pytest.mark.parametrize("key", ["any", "1", '"', "stop", "EMPTY", "m"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_key_that_is_no_secret_changes_no_answer(key: str, streamed: bool) -> None:
    said = "How many are 11? EMPTY stop"
    if streamed:
        chunks = [piece(content=said), piece("stop"), USAGE]
        assert read_chat(ask(stream(*chunks), key=key, on_text=lambda n: None)).content == said
    else:
        assert ask(says(200, json.dumps(answer(said))), key=key) == answer(said)


@pytest.mark.parametrize(("error", "billed"), [(httpx2.ConnectError, False), (httpx2.ReadError, True)])
def test_only_a_connection_that_never_was_is_surely_free(error: Any, billed: bool) -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        raise error(f"no luck with {KEY}", request=request)

    broke = failure(handler)
    assert (broke.status, broke.billed) == (None, billed)
    assert "no luck with [key]" in str(broke)


USAGE = {"id": "1", "model": "toy-1", "choices": [], "usage": answer()["usage"]}
CHUNKS = [
    piece(role="assistant", content=""),
    ": keep-alive\n\n",
    piece(reasoning_content="6*7"),
    piece(reasoning_content="=42"),
    piece(content="4"),
    piece("stop", content="2"),
    USAGE,
    USAGE,
]


def test_a_stream_makes_the_answer_that_would_have_come_whole() -> None:
    came: list[int] = []
    reply = read_chat(ask(stream(*CHUNKS), on_text=came.append))
    assert (reply.reasoning, reply.content, reply.finish) == ("6*7=42", "42", "stop")
    assert (reply.model, reply.usage) == ("toy-1", Usage(hit=4, miss=6, output=20))
    assert sum(came) == len("6*7=4242")


@pytest.mark.parametrize("cut", range(6))
@pytest.mark.parametrize("end", [True, False])
def test_a_stream_that_was_cut_is_a_failure_with_what_came(cut: int, end: bool) -> None:
    broke = failure(stream(*CHUNKS[:cut], end=end), on_text=lambda n: None)
    assert broke.billed
    assert "without" in str(broke)
    if cut >= 4:
        assert broke.partial
        assert broke.partial["choices"][0]["message"]["reasoning_content"].startswith("6*7=42")


@pytest.mark.parametrize("spoilt", ['data: {"choi\n\n', 'data: {"error": {"message": "busy"}}\n\n'])
def test_a_stream_that_goes_wrong_is_a_failure_with_what_came(spoilt: str) -> None:
    broke = failure(stream(*CHUNKS[:4], spoilt, *CHUNKS[4:]), on_text=lambda n: None)
    assert broke.partial
    assert broke.partial["choices"][0]["message"]["reasoning_content"] == "6*7=42"


def test_a_stream_that_repeats_the_key_is_kept_without_it() -> None:
    chunks = [piece(content=f"it is {KEY[:9]}"), piece(content=f"{KEY[9:]}!"), piece("stop"), USAGE]
    assert read_chat(ask(stream(*chunks), on_text=lambda n: None)).content == "it is [key]!"
    failure(stream(*chunks[:2]), on_text=lambda n: None)


def test_a_stream_of_parts_makes_the_answer_that_would_have_come_whole() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "6*7"}]}
    chunks = [
        piece(content=""),
        piece(content=[thought]),
        piece(content="4"),
        piece("stop", content="2"),
        USAGE,
    ]
    came: list[int] = []
    reply = read_chat(ask(stream(*chunks), on_text=came.append))
    assert (reply.reasoning, reply.content, reply.source) == ("6*7", "42", "content")
    assert sum(came) == len("6*742")


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_field_that_the_server_refuses_by_name_is_left_out(status: int, streamed: bool) -> None:
    bodies: list[dict[str, Any]] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        bodies.append(body)
        if "max_tokens" in body:
            error = {"message": "'max_tokens' is not supported. Use 'max_completion_tokens' instead."}
            return httpx2.Response(status, json={"error": error})
        if "stream_options" in body:
            return httpx2.Response(status, json={"detail": [{"loc": ["body", "stream_options"]}]})
        answers = stream(piece(reasoning_content="6*7", content="42"), piece("stop"), USAGE)
        return (answers if streamed else says(200, json.dumps(answer())))(request)

    said = ask(handler, parameters={"max_tokens": 99}, on_text=(lambda n: None) if streamed else None)
    assert read_chat(said).content == "42"
    assert bodies[-1]["max_completion_tokens"] == 99
    assert len(bodies) == 2 + streamed, "each refusal is answered once"


def test_a_field_that_is_refused_by_its_new_name_too_is_refused() -> None:
    broke = failure(says(400, json.dumps({"error": {"message": "max_completion_tokens is too large"}})))
    assert (broke.status, broke.billed) == (400, False)
