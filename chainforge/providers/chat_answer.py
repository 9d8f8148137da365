"""What the JSON of OpenAI's chat API says: put together from chunks, tested for being whole, read.

API: https://platform.openai.com/docs/api-reference/chat
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from chainforge.providers.calls import Reply, Usage
from chainforge.providers.reasoning import split_reasoning

SYNTHETIC = "chainforge-mock"  # the system_fingerprint of `chainforge mock-teacher`


def add(message: dict[str, Any], delta: Mapping[str, Any]) -> int:
    """Append a chunk's text to the message; how many characters it had."""
    came = 0
    for field, value in delta.items():
        before = message.get(field) or ""
        if field == "role" or not isinstance(value, str | list):
            continue
        if isinstance(value, str) and isinstance(before, str):
            message[field] = before + value
        else:  # a list of parts, from the first one on
            message[field] = [*as_parts(before), *as_parts(value)]
        came += sum(map(len, texts_in(value)))
    return came


def as_parts(content: str | list[Any]) -> list[Any]:
    """A text as a list with one part; a list as it is."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content


def texts_in(value: Any) -> Iterator[str]:
    """A text, or the texts of parts however deep; not their types."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from texts_in(part)
    elif isinstance(value, Mapping):
        for field in ("text", "thinking", "reasoning", "summary"):
            yield from texts_in(value.get(field))


def defect(answer: Any) -> str | None:
    """Why this JSON is not a whole answer: it needs a choice, and the reason why that ended."""
    if not isinstance(answer, Mapping):
        return "the answer is not a JSON object"
    if error := answer.get("error"):
        return f"an error instead of an answer: {json.dumps(error)}"
    if not (choice := choice_of(answer)):
        return "an answer without choices"
    return None if choice.get("finish_reason") else "an answer without finish_reason: it was cut"


def error_in(answer: Any) -> Any:
    """What a provider wrote in place of an answer: its `error`, or all of it."""
    return answer.get("error") or answer if isinstance(answer, Mapping) else None


def choice_of(answer: Any) -> Mapping[str, Any] | None:
    """The choice with the lowest index, whatever their order; None if there is nothing in any."""
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    some = [c for c in choices if isinstance(c, Mapping) and c] if isinstance(choices, list) else []
    return min(some, key=lambda c: c["index"] if isinstance(c.get("index"), int) else 0, default=None)


def read_chat(answer: Mapping[str, Any]) -> Reply:
    """What an answer says, in the dialect of any provider."""
    choice = choice_of(answer) or answer["choices"][0]
    message = choice.get("message")
    reasoning, content, source = split_reasoning(message if isinstance(message, Mapping) else {})
    return Reply(
        reasoning=reasoning,
        content=content,
        source=source,
        finish=str(choice["finish_reason"]),
        usage=read_usage(answer.get("usage")),
        model=str(answer.get("model") or "unknown"),
        synthetic=str(answer.get("system_fingerprint")) == SYNTHETIC,
    )


def read_usage(usage: Any) -> Usage:
    """Tokens as DeepSeek counts them (`prompt_cache_hit_tokens`), or as OpenAI does (`cached_tokens`).

    Reasoning that is not among the `completion_tokens` is added: where there is more of it than of those, or
    where `total_tokens` says so. What is not said is 0.
    """
    cached = _count(usage, "prompt_tokens_details", "cached_tokens")
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    hit = min(_count(usage, "prompt_cache_hit_tokens") or cached, prompt)
    reasoning = _count(usage, "completion_tokens_details", "reasoning_tokens") or _count(
        usage, "reasoning_tokens"
    )
    apart = reasoning if reasoning > completion else 0
    return Usage(
        hit=hit,
        miss=prompt - hit,
        output=max(completion + apart, _count(usage, "total_tokens") - prompt),
        reasoning=reasoning,
    )


def _count(found: Any, *path: str) -> int:
    return _number(found, *path) or 0


def _number(found: Any, *path: str) -> int | None:
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return int(found) if isinstance(found, int | float) and 0 <= found < 2**53 else None
