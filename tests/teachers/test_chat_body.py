"""The bytes of an answer, however badly a server speaks: what can be read is read, and all of it is kept."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from fake_api import answer
from hypothesis import given
from hypothesis import strategies as st
from test_chat_dialect import CHUNKS, KEY, ask, failure, stream

from chainforge.providers.chat_answer import read_chat
from chainforge.providers.chat_body import Body, read_text
from chainforge.providers.nesting import CUT, DEEPEST, load_json, shallow_text

WHOLE = json.dumps(answer("é 42"), ensure_ascii=False)
EVENTS = (
    "".join(c if isinstance(c, str) else f"data: {json.dumps(c)}\n\n" for c in CHUNKS) + "data: [DONE]\n\n"
)


def fed(data: bytes, cuts: Sequence[int] = ()) -> Any:
    body = Body()
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        body.feed(data[start:end])
    body.end()
    return body.answer()


@pytest.mark.slow
@given(
    text=st.sampled_from([WHOLE, EVENTS, f"note\n{WHOLE}\nbye", json.dumps(answer(), indent=2)]),
    data=st.data(),
)
def test_where_the_network_cuts_the_bytes_means_nothing(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, 10_000), max_size=8))
    assert fed(text.encode(), cuts) == fed(text.encode())


ODD = {
    "a byte order mark": "\ufeff" + WHOLE,
    "NULs behind": WHOLE + "\0\0",
    "text before": "HTTP proxy v2\n" + WHOLE,
    "text behind": WHOLE + "\n-- served by node 7",
    "text around in one line": f"ok {WHOLE} ok",
    "braces around": "{not json} " + WHOLE + " {",
    "a log line of JSON before": '{"level": "info"}\n' + WHOLE,
    "the same twice": WHOLE + "\n" + WHOLE,
    "an error behind it": WHOLE + '\n{"error": {"message": "closing"}}',
    "a list of one": f"[{WHOLE}]",
    "a wrapper": json.dumps({"status": "ok", "data": json.loads(WHOLE)}),
    "JSON in a text": json.dumps(WHOLE),
    "a callback": f"callback({WHOLE});",
    "a code block": f"```json\n{WHOLE}\n```",
    "an event": f"data: {WHOLE}\n\n",
    "an event of several lines": "".join(
        f"data: {line}\n" for line in json.dumps(answer("é 42"), indent=1).splitlines()
    ),
}


@pytest.mark.parametrize("way", ODD)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_is_there_is_read_and_what_was_around_it_is_kept(way: str, streamed: bool) -> None:
    came: list[int] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=ODD[way].encode())

    said = ask(handler, on_text=came.append if streamed else None)
    reply = read_chat(said)
    assert (reply.reasoning, reply.content, reply.finish) == ("6*7=42", "é 42", "stop")
    assert reply.usage.output == 20
    plain = way in ("a byte order mark", "NULs behind") or "event" in way
    assert said.get("raw_text") == (None if plain else ODD[way])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_other_encodings_are_read(encoding: str) -> None:
    assert read_chat(fed(WHOLE.encode(encoding))).content == "é 42"


def test_one_bad_byte_does_not_lose_the_answer() -> None:
    assert read_chat(fed(WHOLE.encode().replace(b"\xc3\xa9", b"\xff"))).content == "\ufffd 42"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("blank", [True, False])
def test_a_stream_is_read_whatever_ends_its_lines(end: str, blank: bool) -> None:
    events = EVENTS if blank else EVENTS.replace("\n\n", "\n")
    assert read_chat(fed(events.replace("\n", end).encode())).content == "42"
    assert read_chat(fed(events.replace("data: ", "data:").encode())).content == "42"


@pytest.mark.parametrize(
    "odd",
    [
        "data: null\n\n",
        "data: []\n\n",
        'data: {"choices": [null]}\n\n',
        'data: {"choices": null}\n\n',
        "event: x\n\n",
        'data: {"choices": [{"index": null, "delta": null}]}\n\n',
        'data: {"choices": [{"index": "a", "delta": 7}]}\n\n',
    ],
)
@pytest.mark.parametrize("place", range(len(CHUNKS)))
def test_an_odd_event_changes_no_stream(odd: str, place: int) -> None:
    chunks: list[Any] = [*CHUNKS[:place], odd, *CHUNKS[place:]]
    assert read_chat(ask(stream(*chunks), on_text=lambda n: None)).content == "42"


@pytest.mark.parametrize("choices", [[None], None, [], {}, "x", [[]], [7]], ids=repr)
@pytest.mark.parametrize("streamed", [False, True])
def test_odd_choices_are_a_failure_that_keeps_what_came(choices: Any, streamed: bool) -> None:
    text = json.dumps(answer() | {"choices": choices})
    broke = failure(lambda request: httpx2.Response(200, text=text), on_text=print if streamed else None)
    assert (broke.billed, broke.raw_text) == (True, text)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1, None, 0)])
def test_of_several_choices_the_first_by_index_is_read(order: tuple[int | None, ...]) -> None:
    choices = [
        None if n is None else {"index": n, "message": {"content": f"c{n}"}, "finish_reason": "stop"}
        for n in order
    ]
    text = json.dumps(answer() | {"choices": choices})
    assert read_chat(ask(lambda request: httpx2.Response(200, text=text))).content == "c0"


def test_samples_of_a_stream_stay_apart_in_any_order() -> None:
    def piece(index: int, text: str, finish: str | None = None) -> dict[str, Any]:
        return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}

    said = ask(
        stream(
            piece(1, "b"),
            piece(0, "a"),
            piece(1, "B", "stop"),
            piece(0, "A", "stop"),
            {"usage": answer()["usage"]},
        ),
        on_text=lambda n: None,
    )
    assert [choice["message"]["content"] for choice in said["choices"]] == ["aA", "bB"]


@pytest.mark.parametrize("cut", [1, 20, 100, -30, -2])
def test_a_body_that_was_cut_is_kept_as_it_came(cut: int) -> None:
    text = json.dumps(answer("4" * 50))[:cut]
    broke = failure(lambda request: httpx2.Response(200, text=text))
    assert (broke.raw_text, broke.billed) == (text.strip(), True)


class Breaks(httpx2.AsyncByteStream):
    """A body after which the connection breaks."""

    def __init__(self, text: str) -> None:
        self.text = text

    async def __aiter__(self) -> Any:
        yield self.text.encode()
        raise httpx2.RemoteProtocolError("peer closed connection without sending complete message body")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_connection_that_breaks_behind_a_whole_answer_loses_nothing(streamed: bool) -> None:
    text = EVENTS.removesuffix("data: [DONE]\n\n") if streamed else WHOLE
    said = ask(
        lambda request: httpx2.Response(200, stream=Breaks(text)),
        on_text=(lambda n: None) if streamed else None,
    )
    assert read_chat(said).finish == "stop"
    broke = failure(
        lambda request: httpx2.Response(200, stream=Breaks(text[: len(text) // 2])),
        on_text=(lambda n: None) if streamed else None,
    )
    assert "peer closed connection" in str(broke)
    assert broke.billed
    assert broke.partial if streamed else broke.raw_text == text[: len(text) // 2]


def test_an_event_that_cannot_be_read_behind_the_end_is_no_matter() -> None:
    chunks = [*CHUNKS[:-1], 'data: {"choi\n\n']
    assert read_chat(ask(stream(*chunks), on_text=lambda n: None)).content == "42"


def test_the_key_is_not_in_a_body_that_is_kept() -> None:
    broke = failure(lambda request: httpx2.Response(200, text=f"<html>{KEY}"))
    assert broke.raw_text == "<html>[key]"
    said = ask(lambda request: httpx2.Response(200, text=f"{KEY} {WHOLE}"))
    assert said["raw_text"].startswith("[key] {")


@pytest.mark.parametrize("levels", [60, 100, 600, 3000, 100_000])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_nested_however_deep_is_read(levels: int, streamed: bool) -> None:
    deep = '{"a":' * levels + "1" + "}" * levels
    text = WHOLE[:-1] + f', "debug": {deep}}}'
    said = ask(lambda request: httpx2.Response(200, text=text), on_text=print if streamed else None)
    assert read_chat(said).content == "é 42"
    if levels > DEEPEST:
        assert CUT in json.dumps(said)


@pytest.mark.parametrize("between", ["\n", "\n\n", "\t", " \n\n data: x\n"])
def test_a_raw_line_break_within_a_text_is_one(between: str) -> None:
    text = json.dumps(answer("a§b"), ensure_ascii=False).replace("§", between)
    assert read_chat(ask(lambda request: httpx2.Response(200, text=text))).content == f"a{between}b"


@pytest.mark.parametrize("odd", ["NaN", "-Infinity", "1" * 5000, '"\\ud83d"', "1e999"])
def test_what_json_hardly_allows_is_read(odd: str) -> None:
    text = WHOLE[:-1] + f', "odd": {odd}}}'
    assert read_chat(ask(lambda request: httpx2.Response(200, text=text))).content == "é 42"


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.integers() | st.text('[]{}"\\a'),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_what_is_not_deep_is_not_cut(value: Any) -> None:
    assert load_json(json.dumps(value)) == value
    assert shallow_text(json.dumps(value)) == json.dumps(value)


@given(st.text() | st.text('{}[]":,choices'))
def test_any_text_is_read_or_refused_and_never_more(text: str) -> None:
    try:
        read_text(text)
    except ValueError:
        return
