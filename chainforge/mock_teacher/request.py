"""What a request asks for, read from its body and its headers."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson

from chainforge.records import Message

LABEL_HEADER = "X-Client-Request-Id"


class Refusal(Exception):
    """A request is turned away: with which HTTP status, and what the provider says about it."""

    def __init__(self, status: int, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Label:
    """Which answer is wanted. With the same label, a request gets the same answer and the same fault."""

    seed: int
    prompt: str
    sample: int
    attempt: int  # 0 is the first


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. `label` is None where none was sent; `conversation` is a digest of text and seed."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None
    stream: bool
    with_usage: bool
    label: Label | None
    conversation: str


def read_request(body: bytes, label: str | None) -> Request:
    """The request of either API. Raises Refusal with 400 for what no provider would take."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"the body is not JSON: {error}") from None
    if not isinstance(given, dict) or not isinstance(given.get("model"), str):
        raise Refusal(400, "the body needs a model")
    messages = tuple(_read_messages(given))
    if not any(message["role"] == "user" for message in messages):
        raise Refusal(400, "the body needs messages, one of them the user's")
    if given.get("n") not in (None, 1):
        raise Refusal(400, "n must be 1: ask again for another answer")
    max_tokens = given.get("max_tokens", given.get("max_completion_tokens"))
    if max_tokens is not None and (type(max_tokens) is not int or max_tokens < 1):
        raise Refusal(400, f"Invalid max_tokens value, the valid range is 1 and above, found {max_tokens!r}")
    return Request(
        model=given["model"],
        messages=messages,
        max_tokens=max_tokens,
        stream=bool(given.get("stream")),
        with_usage=bool((given.get("stream_options") or {}).get("include_usage")),
        label=read_label(label),
        conversation=make_digest(orjson.dumps([messages, str(given.get("seed"))])),
    )


def read_label(text: str | None) -> Label | None:
    """SEED/PROMPT/SAMPLE/ATTEMPT, each part percent-encoded; None for anything else."""
    try:
        seed, prompt, sample, attempt = map(unquote, (text or "").split("/"))
        label = Label(int(seed), prompt, int(sample), int(attempt))
    except ValueError:
        return None
    return label if label.sample >= 0 and label.attempt >= 0 else None


def make_digest(data: bytes) -> str:
    """16 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _read_messages(given: Mapping[str, Any]) -> Iterable[Message]:
    """The turns; Anthropic has the system's text beside them."""
    if system := given.get("system"):
        yield Message(role="system", content=_read_text(system))
    turns = given.get("messages")
    for turn in turns if isinstance(turns, list) else ():
        if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
            raise Refusal(400, "a message needs a role and a content")
        yield Message(role=turn["role"], content=_read_text(turn.get("content")))


def _read_text(content: Any) -> str:
    """A text, or the texts of a list of blocks."""
    if isinstance(content, list):
        return "".join(_read_text(block.get("text")) for block in content if isinstance(block, dict))
    return content if isinstance(content, str) else ""
