"""What a request asks for, read from its body and its headers."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson

from chainforge.mock_teacher.refused import Refused
from chainforge.records import Message

LABEL_HEADER = "X-Client-Request-Id"


@dataclass(frozen=True, slots=True)
class Label:
    """Which answer is asked for. With the same label, a request gets the same answer and the same fault."""

    seed: int
    prompt: str
    sample: int
    attempt: int  # 0 is the first


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request. `label` is None where the client sent none; `digest` stands for the conversation then."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None
    stream: bool
    with_usage: bool
    label: Label | None
    digest: str


def read_asked(body: bytes, label: str | None) -> Asked:
    """The request of either API. Raises Refused with 400 for what no provider would take."""
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
    if not isinstance(asked, dict) or not isinstance(asked.get("model"), str):
        raise Refused(400, "the body needs a model")
    messages = tuple(_messages(asked))
    if not any(message["role"] == "user" for message in messages):
        raise Refused(400, "the body needs messages, one of them the user's")
    if asked.get("n") not in (None, 1):
        raise Refused(400, "n must be 1: ask again for another answer")
    max_tokens = asked.get("max_tokens", asked.get("max_completion_tokens"))
    if max_tokens is not None and (type(max_tokens) is not int or max_tokens < 1):
        raise Refused(400, f"Invalid max_tokens value, the valid range is 1 and above, found {max_tokens!r}")
    read = read_label(label)
    return Asked(
        model=asked["model"],
        messages=messages,
        max_tokens=max_tokens,
        stream=bool(asked.get("stream")),
        with_usage=bool((asked.get("stream_options") or {}).get("include_usage")),
        label=read,
        digest="" if read else digest(orjson.dumps([messages, str(asked.get("seed"))])),
    )


def read_label(text: str | None) -> Label | None:
    """SEED/PROMPT/SAMPLE/ATTEMPT, each part percent-encoded; None for anything else."""
    try:
        seed, prompt, sample, attempt = map(unquote, (text or "").split("/"))
        label = Label(int(seed), prompt, int(sample), int(attempt))
    except ValueError:
        return None
    return label if label.sample >= 0 and label.attempt >= 0 else None


def digest(data: bytes) -> str:
    """16 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _messages(asked: Mapping[str, Any]) -> Iterable[Message]:
    """The turns; Anthropic has the system's text beside them."""
    if system := asked.get("system"):
        yield Message(role="system", content=_text(system))
    turns = asked.get("messages")
    for turn in turns if isinstance(turns, list) else ():
        if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
            raise Refused(400, "a message needs a role and a content")
        yield Message(role=turn["role"], content=_text(turn.get("content")))


def _text(content: Any) -> str:
    """A text, or the texts of a list of blocks."""
    if isinstance(content, list):
        return "".join(_text(block.get("text")) for block in content if isinstance(block, dict))
    return content if isinstance(content, str) else ""
