"""Which request meets which fault; and every fault does on the wire what its record says."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mock_asking import ask, blocks, careful, events, joined, joined_blocks, label, question, with_server

from chainforge.errors import ChainForgeError
from chainforge.mock_teacher.faults import FAULTS, INSTEAD, Fault, adapt
from chainforge.mock_teacher.ledger import Entry
from chainforge.mock_teacher.request import Label
from chainforge.mock_teacher.script import FaultScript
from chainforge.mock_teacher.serve import Served
from chainforge.providers.reasoning import split_reasoning

REASONING = "12-8=4 write 4 borrow 1. 10-3-1=6 write 6 borrow 1. 4-1=3 write 3."
SILENT = ("hang", "blank_lines_endless")  # a client that waits would wait for ever
each_fault = pytest.mark.parametrize("name", sorted(FAULTS))
each_wire = pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])


@dataclass
class Got:
    """What came over the wire, until it ended or broke or took too long."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    error: Exception | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


async def listen(
    session: aiohttp.ClientSession,
    served: Served,
    stream: bool,
    *,
    path: str = "/chat/completions",
    patience_s: float = 10.0,
    **more: int,
) -> Got:
    got = Got()
    try:
        async with (
            asyncio.timeout(patience_s),
            session.post(served.url + path, json=question(stream=stream), headers=label(**more)) as reply,
        ):
            got.status, got.headers = reply.status, reply.headers
            async for chunk in reply.content.iter_any():
                got.chunks.append(chunk)
    except (aiohttp.ClientError, TimeoutError) as error:
        got.error = error
    return got


def struck(name: str, stream: bool, **more: Any) -> tuple[Got, Entry]:
    """A first attempt under a fault that everybody gets, and what the ledger has of it."""
    script = FaultScript(rates={name: 1.0}, blank_s=0.005, drip_s=0.1)

    async def story(session: aiohttp.ClientSession, served: Served) -> Got:
        return await listen(session, served, stream, patience_s=0.3 if name in SILENT else 10.0, **more)

    dialect = "anthropic" if more.get("path") == "/messages" else "deepseek"
    got, served = with_server(careful(faults=script, dialect=dialect), story)
    (entry,) = served.ledger.entries
    return got, entry


def answer_in(got: Got, stream: bool) -> tuple[Any, Any, Any] | None:
    """(reasoning and content, finish, usage) if all of it is there."""
    if got.error or got.status != 200:
        return None
    try:
        if stream:
            pieces = joined(got.body)
            said, finish, usages = pieces["message"], pieces["finish_reason"], pieces["usages"]
        else:
            whole = orjson.loads(got.body)
            (choice,) = whole["choices"]
            said, finish, usages = choice["message"], choice["finish_reason"], [whole["usage"]]
    except (ValueError, KeyError):
        return None
    return (split_reasoning(said)[:2], finish, usages[-1]) if finish and usages else None


def effective(name: str, stream: bool) -> Fault | None:
    return adapt(FAULTS[name], stream=stream)


@pytest.mark.dear
@each_wire
@each_fault
def test_the_client_gets_what_the_record_says_and_pays_what_it_says(name: str, stream: bool) -> None:
    got, entry = struck(name, stream)
    fault = effective(name, stream)
    found = answer_in(got, stream)
    assert entry.fault == (fault.name if fault else None)
    assert entry.status == (fault.status if fault else 200)
    assert (found is not None) == entry.delivered == (fault.whole if fault else True)
    assert entry.billed == (fault.billed if fault else True) == (entry.cost > 0)
    if name == "missing_usage":
        assert found is None
    elif fault is None or fault.then == "answered":
        assert found is not None
        assert found[:2] == ((REASONING, "364"), "stop")
    else:
        assert found is None or found[:2] != ((REASONING, "364"), "stop")
    if found:
        assert entry.usage is not None
        assert found[2]["completion_tokens"] == entry.usage.output


@each_fault
def test_asking_again_helps_unless_it_is_the_prompt_s_fault(name: str) -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> Got:
        return await listen(session, served, False, attempt=1)

    got, _ = with_server(careful(faults=FaultScript(rates={name: 1.0})), story)
    fault = FAULTS[name]
    if fault.then == "skip":
        assert got.status == fault.status
    else:
        assert answer_in(got, False) is not None


@pytest.mark.dear
@each_wire
@pytest.mark.parametrize("name", sorted(set(FAULTS) - set(SILENT)))
def test_anthropic_s_messages_have_the_same_faults(name: str, stream: bool) -> None:
    got, entry = struck(name, stream, path="/messages")
    fault = effective(name, stream)
    assert entry.fault == (fault.name if fault else None)
    assert entry.delivered == (fault is None or fault.whole)
    if got.status not in (0, 200, 502):
        assert orjson.loads(got.body)["type"] == "error"
    if fault is None or fault.then == "answered":
        texts = joined_blocks(got.body)["texts"] if stream else blocks(orjson.loads(got.body)["content"])
        assert texts == {"thinking": REASONING, "text": "364"}
    if name == "content_filter":
        stop = joined_blocks(got.body)["stop_reason"] if stream else orjson.loads(got.body)["stop_reason"]
        assert stop == "refusal"


@each_wire
@pytest.mark.parametrize("name", sorted(name for name, fault in FAULTS.items() if fault.status != 200))
def test_a_refusal_has_its_status_and_costs_nothing_unless_it_came_too_late(name: str, stream: bool) -> None:
    got, entry = struck(name, stream)
    assert got.status == FAULTS[name].status
    assert ("Retry-After" in got.headers) == (name == "rate_limited_retry_after")
    assert got.headers["Content-Type"].startswith(
        "text/html" if name == "bad_gateway" else "application/json"
    )
    assert not entry.delivered
    if name == "gateway_timeout":
        assert entry.billed
        assert entry.cost > 0
    else:
        assert (entry.billed, entry.cost, entry.usage) == (False, 0, None)
    if name == "unknown_model":
        assert orjson.loads(got.body)["error"]["message"] == "Model Not Exist"


@each_wire
def test_blank_lines_and_comments_come_before_the_body(stream: bool) -> None:
    assert struck("blank_lines", stream)[0].body.startswith(b"\n" * 5 + (b"data:" if stream else b"{"))
    comments = struck("keep_alive_comments", stream)[0].body
    assert comments.startswith(b": keep-alive\n\n" * 5 if stream else b"\n" * 5)


@pytest.mark.slow
@each_wire
def test_silence_of_each_sort(stream: bool) -> None:
    endless, _ = struck("blank_lines_endless", stream)
    assert isinstance(endless.error, TimeoutError)
    assert set(endless.body) == {ord("\n")}
    assert len(endless.body) > 2
    only, _ = struck("blank_lines_only", stream)
    assert (only.status, only.body, only.error) == (200, b"\n" * 5, None)
    empty, _ = struck("empty_body", stream)
    assert (empty.status, empty.body, empty.error) == (200, b"", None)
    hanging, _ = struck("hang", stream)
    assert isinstance(hanging.error, TimeoutError)
    assert hanging.status == 0


@each_wire
def test_connections_break_where_they_should(stream: bool) -> None:
    before, _ = struck("reset_before", stream)
    assert (type(before.error), before.status) == (aiohttp.ClientOSError, 0)
    midway, _ = struck("reset_midway", stream)
    assert "Connection reset" in str(midway.error)
    assert midway.body
    cut, _ = struck("cut_json", stream=False)
    assert isinstance(cut.error, aiohttp.ClientPayloadError)
    assert 0 < len(cut.body) < int(cut.headers["Content-Length"])
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(cut.body)


def test_a_stream_that_is_cut_ends_in_good_order_with_some_text_and_no_finish() -> None:
    got, _ = struck("cut_stream", stream=True)
    pieces = joined(got.body)
    assert got.error is None
    assert b"[DONE]" not in got.body
    assert pieces["finish_reason"] is None
    assert REASONING.startswith(pieces["message"]["reasoning_content"])
    assert pieces["message"]["reasoning_content"]


def test_an_error_comes_among_the_events() -> None:
    got, _ = struck("error_event", stream=True)
    *_, last = events(got.body)
    assert last["error"]["message"]
    assert len(events(got.body)) > 2
    assert b"event: error\ndata: {" in struck("error_event", stream=True, path="/messages")[0].body


@each_wire
def test_json_is_bad_though_the_body_is_whole(stream: bool) -> None:
    got, _ = struck("bad_json", stream)
    assert got.error is None
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(got.body) if not stream else events(got.body)


@each_wire
def test_an_error_under_status_200_is_json(stream: bool) -> None:
    got, _ = struck("error_in_200", stream)
    assert (got.status, set(orjson.loads(got.body))) == (200, {"error"})


@each_wire
def test_bodies_lack_what_they_should(stream: bool) -> None:
    def message(name: str) -> dict[str, Any]:
        body = struck(name, stream)[0].body
        if stream:
            return joined(body)
        whole = orjson.loads(body)
        (choice,) = whole["choices"] or [{"message": {}, "finish_reason": None}]
        return choice | {"usages": [whole["usage"]] if "usage" in whole else []}

    assert message("no_choices")["message"] == {}
    assert message("no_choices")["usages"]
    nothing = message("null_content")["message"]
    assert not nothing["content"]
    assert not nothing.get("reasoning_content")
    assert message("missing_usage")["usages"] == []
    assert message("missing_finish")["finish_reason"] is None
    assert message("missing_finish")["message"]["content"] == "364"
    assert message("unknown_finish")["finish_reason"] == "mystery"
    thoughtless = message("no_reasoning")["message"]
    assert (thoughtless["content"], thoughtless.get("reasoning_content")) == ("364", None)
    for name in ("length", "insufficient_system_resource"):
        cut = message(name)
        assert (cut["finish_reason"], cut["message"]["content"]) == (name, "")
        assert cut["message"]["reasoning_content"] == REASONING[: len(REASONING) // 2]
    filtered = message("content_filter")
    assert (filtered["finish_reason"], filtered["message"]["content"]) == ("content_filter", "3")


def test_usage_comes_twice() -> None:
    usages = joined(struck("duplicate_usage", stream=True)[0].body)["usages"]
    assert len(usages) == 2
    assert usages[0] == usages[1]


@each_wire
def test_a_body_drips_byte_by_byte(stream: bool) -> None:
    assert len(struck("slow_drip", stream)[0].chunks) > 100


@each_wire
def test_characters_are_split_between_chunks(stream: bool) -> None:
    got, _ = struck("split_utf8", stream)
    assert got.body.decode()
    broken = 0
    for chunk in got.chunks:
        try:
            chunk.decode()
        except UnicodeDecodeError:
            broken += 1
    assert broken >= 2


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("dialect_deepseek", "reasoning_content"),
        ("dialect_vllm", "reasoning"),
        ("dialect_openrouter", "reasoning_details"),
        ("dialect_inline", "<think>"),
        ("dialect_inline_unopened", "</think>"),
        ("dialect_kimi", "◁think▷"),
    ],
)
@each_wire
def test_another_dialect_is_spoken(name: str, where: str, stream: bool) -> None:
    body = struck(name, stream)[0].body
    said = joined(body)["message"] if stream else orjson.loads(body)["choices"][0]["message"]
    assert where in said or where in said["content"]
    assert ("<think>" in said["content"]) == (name == "dialect_inline")


def test_the_key_of_the_server_is_checked_before_any_fault() -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> int:
        status, _ = await ask(session, served, headers={"Authorization": "Bearer wrong"})
        return status

    script = FaultScript(rates={"server_error": 1.0})
    status, _ = with_server(careful(key="right", faults=script), story)
    assert status == 401


MIXED = FaultScript(rates={"rate_limited": 0.1, "hang": 0.2, "bad_request": 0.05}, seed=3, attempts=2)
labels = st.builds(Label, st.integers(0, 99), st.text(max_size=9), st.integers(0, 9), st.integers(0, 9))


def names(script: FaultScript, n: int = 4000, **label: int) -> list[str | None]:
    found = [
        script.choose(Label(1, f"p{i}", label.get("sample", 0), label.get("attempt", 0)), i) for i in range(n)
    ]
    return [fault.name if fault else None for fault in found]


@pytest.mark.slow
@given(label=labels, numbers=st.lists(st.integers(1, 999), min_size=2, max_size=2))
def test_neither_the_order_of_requests_nor_the_run_s_seed_matters(label: Label, numbers: list[int]) -> None:
    first, second = (MIXED.choose(label, number) for number in numbers)
    assert first == second == MIXED.choose(Label(0, label.prompt, label.sample, label.attempt), 1)


def test_rates_are_fractions_of_the_samples() -> None:
    found = names(MIXED)
    for name, rate in MIXED.rates.items():
        assert abs(found.count(name) / len(found) - rate) < 0.02


def test_another_seed_and_another_sample_strike_other_requests() -> None:
    other = FaultScript(rates=MIXED.rates, seed=4, attempts=2)
    assert len({tuple(names(MIXED)), tuple(names(other)), tuple(names(MIXED, sample=1))}) == 3


@given(label=labels)
def test_only_the_first_attempts_are_struck_but_a_refused_prompt_stays_refused(label: Label) -> None:
    fault = MIXED.choose(label, 1)
    lasting = fault is not None and fault.then == "skip"
    assert lasting or label.attempt < 2 or fault is None
    if lasting:
        assert MIXED.choose(Label(5, label.prompt, 3, 8), 99) == fault


@given(label=labels, number=st.integers(1, 20))
def test_from_some_request_on_everybody_is_refused(label: Label, number: int) -> None:
    script = FaultScript(after={"payment_required": 10})
    assert script.choose(label, number) == (FAULTS["payment_required"] if number >= 10 else None)


def test_the_command_line_s_form_and_a_file_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text("rates: {hang: 0.25, cut_json: 1e-2}\nafter: {unauthorized: 7}\n")
    expected = FaultScript(rates={"hang": 0.25, "cut_json": 0.01}, after={"unauthorized": 7})
    assert FaultScript.parse("hang=0.25, cut_json=1e-2,unauthorized@7") == FaultScript.read(path) == expected
    path.write_text("attempts: 3\nseed: 5\nretry_after_s: 0.5\n")
    assert FaultScript.read(path) == FaultScript(attempts=3, seed=5, retry_after_s=0.5)
    path.write_text("")
    assert FaultScript.read(path) == FaultScript()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rate_limitd=0.1", "there is no fault called 'rate_limitd'\n  -> did you mean 'rate_limited'"),
        ("hang", "'hang' is not NAME=RATE"),
        ("hang=often", "faults: rates.hang: Input should be a valid number"),
        ("hang=0.6,cut_json=0.6", "the rates of the faults are"),
        ("hang=-1", "faults: rates.hang: Input should be greater than or equal to 0"),
        ("hang@0", "requests are counted from 1"),
        ("hang@1.5", "faults: after.hang: "),
    ],
)
def test_a_script_that_makes_no_sense_is_an_error(text: str, complaint: str) -> None:
    with pytest.raises(ChainForgeError) as raised:
        FaultScript.parse(text)
    assert complaint in str(raised.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rate: {hang: 1}", "did you mean 'rates'"),
        ("[hang]", "not a mapping"),
        ("rates: {hang", "line 1: not YAML"),
        ("attempts: -1", "attempts: Input should be greater than or equal to 0"),
    ],
)
def test_a_file_that_makes_no_sense_is_an_error(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    with pytest.raises(ChainForgeError) as raised:
        FaultScript.read(path)
    assert complaint in str(raised.value)


def test_a_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ChainForgeError, match=r"nowhere\.yaml"):
        FaultScript.read(Path("nowhere.yaml"))


def test_each_fault_that_a_response_cannot_have_leads_to_one_that_it_can() -> None:
    for name, other in INSTEAD.items():
        assert FAULTS[name].only is not None
        assert FAULTS[other].only != FAULTS[name].only
