"""Every dialect says the same, in its own words, at once or in a stream."""

from typing import Any

import aiohttp
import anthropic
import openai
import orjson
import pytest
from mock_asking import ask, blocks, careful, joined, joined_blocks, label, question, with_server

from chainforge.mock_teacher.dialects import CHAT, DIALECTS
from chainforge.mock_teacher.draft import tokens
from chainforge.mock_teacher.serve import Served
from chainforge.providers.reasoning import split_reasoning

REASONING = "12-8=4 write 4 borrow 1. 10-3-1=6 write 6 borrow 1. 4-1=3 write 3."
SYSTEM = {"role": "system", "content": "Think, then answer."}
USAGE = {
    "prompt_tokens": 2 + 5,
    "completion_tokens": tokens(REASONING) + 1,
    "total_tokens": 8 + tokens(REASONING),
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
        expected["completion_tokens_details"] = {"reasoning_tokens": tokens(REASONING)}
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
    assert (read, cached, written) == (2, 5, tokens(REASONING) + 1)


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
    assert found == (REASONING, "364", "stop", tokens(REASONING) + 1)


@pytest.mark.parametrize("stream", [False, True])
def test_the_client_of_anthropic_reads_it(stream: bool) -> None:
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
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", tokens(REASONING) + 1)
    assert message.model_extra["synthetic"] is True


def test_every_dialect_is_tested() -> None:
    assert {*MARKS, "anthropic"} == set(DIALECTS)
