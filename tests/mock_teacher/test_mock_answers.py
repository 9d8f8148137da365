"""The mock teacher answers as the teachers in the process do, in the words of every provider."""

import asyncio
import random
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import aiohttp
import openai
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mock_asking import (
    PLUGINS,
    ask,
    blocks,
    careful,
    joined,
    joined_blocks,
    label,
    question,
    teachers,
    with_server,
)

from chainforge.mock_teacher.dialects import CHAT, DIALECTS
from chainforge.mock_teacher.draft import count_tokens
from chainforge.mock_teacher.mock import MockTeacher, answer, write_draft, write_filler
from chainforge.mock_teacher.request import Label, Refusal, read_label, read_request
from chainforge.mock_teacher.serve import Served
from chainforge.providers.reasoning import split_reasoning
from chainforge.records import Prompt, Trace

TEACHERS = teachers(wrong_fraction=0.3)


def some_prompts(source: str, n: int) -> list[Prompt]:
    return list(PLUGINS.pick("prompt_sources", source).component(split="train", n=n, seed=17))


@pytest.mark.dear
@pytest.mark.parametrize(
    ("source", "teacher"), [("procedural_reasoning", 0), ("procedural_instructions", 1)], ids=str
)
def test_every_answer_is_the_trace_of_the_teacher_in_the_process(source: str, teacher: int) -> None:
    prompts, samples, seed = some_prompts(source, 60), 3, 23
    expected = list(TEACHERS[teacher].generate(prompts, n=samples, seed=seed))

    async def story(session: aiohttp.ClientSession, served: Served) -> list[Trace]:
        async def one(prompt: Prompt, sample: int) -> Trace:
            body = question(prompt.messages[-1]["content"])
            status, reply = await ask(session, served, body, label(prompt.id, sample, seed=seed))
            assert status == 200
            (choice,) = orjson.loads(reply)["choices"]
            message = choice["message"]
            reasoning = message["reasoning_content"] or ""
            return Trace(prompt.id, reasoning, message["content"], choice["finish_reason"], "procedural")

        return await asyncio.gather(*(one(prompt, i) for prompt in prompts for i in range(samples)))

    found, _ = with_server(MockTeacher(teachers=TEACHERS), story)
    assert found == expected
    assert {trace.finish for trace in found} == {"stop", "length"}


def test_the_last_message_of_the_user_is_the_question() -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "47 mod 6?"},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": [{"type": "text", "text": "99+16"}, {"type": "text", "text": "=?"}]},
    ]
    request = read_request(orjson.dumps({"model": "m", "messages": turns}), None)
    assert answer(careful(), request, Label(1, "p", 0, 0)).content == "115"


def test_the_same_label_gets_the_same_bytes_and_another_sample_another_id() -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> list[bytes]:
        headers = [label(), label(), label(attempt=3), label(sample=1), label("p2"), label(seed=18)]
        return [(await ask(session, served, None, each))[1] for each in headers]

    (first, again, retried, *others), _ = with_server(careful(), story)
    assert first == again == retried
    assert len({orjson.loads(body)["id"] for body in (first, *others)}) == 4


def test_without_a_label_the_conversation_and_its_seed_decide() -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> list[bytes]:
        bodies = [question("Why?"), question("Why?"), question("Why?", seed=1), question("Who?")]
        key = {"x-api-key": "any"}
        return [(await ask(session, served, body, key))[1] for body in bodies]

    (first, again, *others), served = with_server(MockTeacher(), story)
    assert first == again
    assert len({first, *others}) == 3
    assert [entry.label.attempt for entry in served.ledger.entries] == [0, 1, 0, 0]


@given(st.integers(), st.text(st.characters(codec="utf-8")), st.integers(0, 99), st.integers(0, 9))
def test_a_label_is_read_as_it_was_written(seed: int, prompt: str, sample: int, attempt: int) -> None:
    header = label(prompt, sample, attempt, seed)["X-Client-Request-Id"]
    assert header.isascii()
    assert read_label(header) == Label(seed, prompt, sample, attempt)


@pytest.mark.parametrize("text", [None, "", "a uuid", "1/p/0", "1/p/0/0/0", "x/p/0/0", "1/p/-1/0", "1/p/0/x"])
def test_any_other_header_is_no_label(text: str | None) -> None:
    assert read_label(text) is None


def test_filler_has_the_median_length_that_was_asked_for_and_a_long_tail() -> None:
    lengths = [count_tokens(write_filler("p", 300, random.Random(i)).reasoning) for i in range(400)]
    median = statistics.median(lengths)
    assert 250 < median < 350
    assert 1.5 < statistics.quantiles(lengths, n=100)[83] / median < 2.2  # e^0.6 is 1.82


@given(limit=st.integers(1, 60))
def test_an_answer_never_has_more_tokens_than_allowed_and_is_a_beginning_of_the_whole(limit: int) -> None:
    def draft(max_tokens: int | None) -> tuple[str, str, str | None, int]:
        asked = read_request(orjson.dumps(question(max_tokens=max_tokens)), None)
        made = write_draft(careful(), asked, Label(17, "p1", 0, 0))
        return made.reasoning or "", made.content or "", made.finish, made.usage.output

    reasoning, content, finish, output = draft(None)
    cut_reasoning, cut_content, cut_finish, cut_output = draft(limit)
    assert cut_output == min(limit, output)
    assert cut_finish == ("length" if limit < output else finish)
    assert reasoning.startswith(cut_reasoning)
    assert content.startswith(cut_content)
    assert not cut_content or cut_reasoning == reasoning


class Broken:
    def generate(self, prompts: Sequence[Prompt], *, n: int, seed: int) -> Iterator[Trace]:
        raise ZeroDivisionError("oh")


def test_a_teacher_that_breaks_says_so_and_is_not_covered_up() -> None:
    request = read_request(orjson.dumps(question()), None)
    with pytest.raises(Refusal, match="Broken failed: ZeroDivisionError: oh") as raised:
        answer(careful(teachers=[Broken()]), request, Label(1, "p", 0, 0))
    assert raised.value.status == 500


REASONING = "12-8=4 write 4 borrow 1. 10-3-1=6 write 6 borrow 1. 4-1=3 write 3."
SYSTEM = {"role": "system", "content": "Think, then answer."}
USAGE = {
    "prompt_tokens": 2 + 5,
    "completion_tokens": count_tokens(REASONING) + 1,
    "total_tokens": 8 + count_tokens(REASONING),
}
MARKS = {
    "deepseek": {"reasoning_content": REASONING, "content": "364"},
    "openrouter": {
        "reasoning": REASONING,
        "reasoning_details": [{"type": "reasoning.text", "text": REASONING, "format": "unknown", "index": 0}],
        "content": "364",
    },
    "vllm": {"reasoning": REASONING, "content": "364"},
    "sglang": {"reasoning_content": REASONING, "content": "364"},
    "generic": {"reasoning_content": REASONING, "content": "364"},
    "inline": {"content": f"<think>\n{REASONING}\n</think>\n\n364"},
    "inline-unopened": {"content": f"{REASONING}\n</think>\n\n364"},
    "kimi": {"content": f"◁think▷{REASONING}◁/think▷364"},
}
each_chat = pytest.mark.parametrize("dialect", [dialect.name for dialect in CHAT])


def both_ways(dialect: str, **more: Any) -> tuple[bytes, bytes]:
    """The body at once, and streamed."""
    path = "/messages" if dialect == "anthropic" else "/chat/completions"

    async def story(session: aiohttp.ClientSession, served: Served) -> tuple[bytes, bytes]:
        replies = [
            await ask(session, served, question(stream=stream, **more), path=path) for stream in (False, True)
        ]
        assert [status for status, _ in replies] == [200, 200]
        return replies[0][1], replies[1][1]

    found, _ = with_server(careful(dialect=dialect), story)
    return found


@each_chat
def test_reasoning_and_answer_are_where_the_provider_puts_them(dialect: str) -> None:
    (choice,) = orjson.loads(both_ways(dialect)[0])["choices"]
    assert choice["message"] == {"role": "assistant"} | MARKS[dialect]
    assert split_reasoning(choice["message"])[:2] == (REASONING, "364")


@each_chat
def test_the_pieces_of_a_stream_make_up_the_answer(dialect: str) -> None:
    turns = {"messages": [SYSTEM, question()["messages"][0]]}
    at_once, streamed = both_ways(dialect, **turns)
    whole, pieces = orjson.loads(at_once), joined(streamed)
    details = pieces["message"].pop("reasoning_details", [])
    (choice,) = whole["choices"]
    expected = {"role": "assistant", **pieces["message"]}
    if details:
        expected["reasoning_details"] = [details[0] | {"text": "".join(part["text"] for part in details)}]
    assert choice["message"] == expected
    assert pieces["finish_reason"] == choice["finish_reason"] == "stop"
    assert pieces["usages"] == [whole["usage"]]
    assert streamed.endswith(b"data: [DONE]\n\n")


@each_chat
def test_usage_adds_up_and_a_system_message_is_a_hit(dialect: str) -> None:
    turns = {"messages": [SYSTEM, question()["messages"][0]]}
    usage = orjson.loads(both_ways(dialect, **turns)[0])["usage"]
    expected: dict[str, Any] = USAGE | {"prompt_tokens_details": {"cached_tokens": 5}}
    if dialect == "deepseek":
        expected |= {"prompt_cache_hit_tokens": 5, "prompt_cache_miss_tokens": 2}
        expected["completion_tokens_details"] = {"reasoning_tokens": count_tokens(REASONING)}
    assert usage == expected


@pytest.mark.parametrize("dialect", ["inline", "kimi"])
def test_a_thought_that_was_cut_off_is_not_closed(dialect: str) -> None:
    (choice,) = orjson.loads(both_ways(dialect, max_tokens=3)[0])["choices"]
    assert choice["finish_reason"] == "length"
    assert split_reasoning(choice["message"]) == (REASONING[:12], "", "inline")


def test_a_stream_tells_usage_only_if_asked() -> None:
    _, streamed = both_ways("deepseek", stream_options=None)
    assert joined(streamed)["usages"] == []


def test_anthropic_says_the_same_at_once_and_in_a_stream() -> None:
    at_once, streamed = both_ways("anthropic", system="Think, then answer.")
    whole, pieces = orjson.loads(at_once), joined_blocks(streamed)
    assert blocks(whole["content"]) == pieces["texts"] == {"thinking": REASONING, "text": "364"}
    assert whole["stop_reason"] == pieces["stop_reason"] == "end_turn"
    assert whole["usage"] == pieces["usage"]
    assert whole["synthetic"] is True
    read, cached, written = (
        whole["usage"][name] for name in ("input_tokens", "cache_read_input_tokens", "output_tokens")
    )
    assert (read, cached, written) == (2, 5, count_tokens(REASONING) + 1)


@pytest.mark.parametrize("stream", [False, True])
def test_the_client_of_openai_reads_it(stream: bool) -> None:
    async def story(_: aiohttp.ClientSession, served: Served) -> tuple[str, str, str | None, int]:
        async with openai.AsyncOpenAI(base_url=served.url, api_key="any", max_retries=0) as client:
            asked = question(stream=stream)
            reply = await client.chat.completions.create(**asked, extra_headers=label())
            if not stream:
                (choice,) = reply.choices
                assert (reply.model, reply.system_fingerprint) == ("m", "chainforge-mock")
                reasoning = choice.message.model_extra["reasoning_content"]
                return reasoning, choice.message.content, choice.finish_reason, reply.usage.completion_tokens
            reasoning, content, finish, written = "", "", None, 0
            async for chunk in reply:
                written = chunk.usage.completion_tokens if chunk.usage else written
                for choice in chunk.choices:
                    reasoning += choice.delta.model_extra.get("reasoning_content") or ""
                    content += choice.delta.content or ""
                    finish = choice.finish_reason or finish
            return reasoning, content, finish, written

    found, _ = with_server(careful(), story)
    assert found == (REASONING, "364", "stop", count_tokens(REASONING) + 1)


@pytest.mark.slow  # for its import
@pytest.mark.parametrize("stream", [False, True])
def test_the_client_of_anthropic_reads_it(stream: bool) -> None:
    import anthropic

    async def story(_: aiohttp.ClientSession, served: Served) -> Any:
        async with anthropic.AsyncAnthropic(base_url=served.root, api_key="any", max_retries=0) as client:
            asked = {name: value for name, value in question().items() if name != "stream"}
            if not stream:
                return await client.messages.create(**asked, extra_headers=label())
            async with client.messages.stream(**asked, extra_headers=label()) as reply:
                return await reply.get_final_message()

    message, _ = with_server(careful(dialect="anthropic"), story)
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert (message.content[0].thinking, message.content[1].text) == (REASONING, "364")
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", count_tokens(REASONING) + 1)
    assert message.model_extra["synthetic"] is True


def test_every_dialect_is_tested() -> None:
    assert {*MARKS, "anthropic"} == set(DIALECTS)
