"""What an honest server answers, and how it goes over the wire: whole, or as events."""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from odd_server import Asked, Said, http

SENTENCE = "seven times that is the sum of both, so carry one — très bien 七 🙂 then check it again"
WORDS = SENTENCE.split()
TOKEN = 4  # characters, on this server
TEMPLATE = 8  # tokens around a prompt
DONE = b"data: [DONE]\n\n"


def honest(asked: Asked) -> dict[str, Any]:
    """The answer to a prompt: always the same but for its `id`, which no other response has.

    It has no more tokens than it may have, and as many choices as were asked for.
    """
    choices = [choice(asked, index) for index in range(int(asked.body.get("n") or 1))]
    said = [
        len(text) for c in choices for text in (c["message"]["reasoning_content"], c["message"]["content"])
    ]
    taken, written = -(-len(asked.prompt) // TOKEN) + TEMPLATE, sum(-(-size // TOKEN) for size in said)
    return {
        "id": mark(asked),
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "odd-1",
        "choices": choices,
        "usage": {
            "prompt_tokens": taken,
            "completion_tokens": written,
            "total_tokens": taken + written,
            "completion_tokens_details": {"reasoning_tokens": sum(-(-size // TOKEN) for size in said[::2])},
        },
    }


def mark(asked: Asked) -> str:
    """The `id` of a response."""
    return f"odd-{hashlib.sha256(asked.prompt.encode()).hexdigest()[:12]}-{asked.number}-"


def choice(asked: Asked, index: int) -> dict[str, Any]:
    """One of the answers to a prompt."""
    chance = random.Random(f"{asked.prompt} {index}")
    thought = " ".join(chance.choices(WORDS, k=chance.randint(50, 120)))
    content = f"the answer of {chance.randint(100, 999)} 🙂"
    room = TOKEN * int(asked.body.get("max_tokens") or asked.body.get("max_completion_tokens") or 1 << 20)
    rest = max(room - len(thought) - TOKEN, 0) // TOKEN * TOKEN
    message = {"role": "assistant", "reasoning_content": thought[:room], "content": content[:rest]}
    whole = len(content) <= rest
    return {"index": index, "message": message, "finish_reason": "stop" if whole else "length"}


def bill(answer: Mapping[str, Any]) -> tuple[int, int]:
    """What an honest answer's usage says."""
    return answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]


def just(asked: Asked) -> Said:
    """An answer without any fault."""
    answer = honest(asked)
    return Said(steps=framed(answer, asked), tokens=bill(answer), mark=mark(asked))


def framed(answer: Any, asked: Asked) -> list[bytes]:
    """An answer as it was asked for."""
    return chunked([*events(answer), DONE]) if asked.streamed else [http(200, dumps(answer))]


def dumps(said: Any) -> bytes:
    return json.dumps(said, ensure_ascii=False).encode("utf-8", "surrogatepass")


def chunked(
    bodies: Sequence[bytes], end: bytes = b"0\r\n\r\n", kind: str = "text/event-stream"
) -> list[bytes]:
    """A response in HTTP chunks, one for each of these."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    return [head, *(b"%x\r\n%b\r\n" % (len(body), body) for body in bodies if body), end]


def event(said: Any) -> bytes:
    return b"data: " + dumps(said) + b"\n\n"


def events(answer: Any) -> list[bytes]:
    """A stream without its [DONE]: choices take turns, and the usage comes last. What is odd is one event."""
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if not isinstance(choices, list) or not all(
        isinstance(c, Mapping) and isinstance(c.get("message"), Mapping) for c in choices
    ):
        return [event(answer)]
    head = {k: v for k, v in answer.items() if k not in ("choices", "usage")}
    head |= {"object": "chat.completion.chunk"} if "object" in head else {}
    turns = [list(deltas(c)) for c in choices]
    said = [turn[k] for k in range(max(map(len, turns), default=0)) for turn in turns if k < len(turn)]
    usage = [event(head | {"choices": [], "usage": answer["usage"]})] if "usage" in answer else []
    return [event(head | {"choices": [piece]}) for piece in said] + usage


def deltas(choice: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The pieces of one choice."""
    rest = {k: v for k, v in choice.items() if k not in ("message", "finish_reason")}
    for field, value in choice["message"].items():
        for piece in pieces(value):
            yield rest | {"delta": {field: piece}, "finish_reason": None}
    yield rest | {"delta": {}} | {k: choice[k] for k in ("finish_reason",) if k in choice}


def pieces(value: Any) -> list[Any]:
    """A text in three, a list one by one."""
    if isinstance(value, str) and len(value) > 12:
        third = len(value) // 3
        return [value[:third], value[third : 2 * third], value[2 * third :]]
    return [[part] for part in value] if isinstance(value, list) and value else [value]
