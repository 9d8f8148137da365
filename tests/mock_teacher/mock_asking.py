"""How these tests ask: a label, a question, and the answer read from whatever dialect it came in."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson

from chainforge.hookspecs import Teacher
from chainforge.mock_teacher.mock import MockTeacher
from chainforge.mock_teacher.serve import Served, serve
from chainforge.plugins import load_plugins

PLUGINS = load_plugins(Path(__file__).parents[2] / "plugins")
QUESTION = "402-38=?"
KEY = {"Authorization": "Bearer sk-test"}


def teachers(**settings: float) -> list[Teacher]:
    """Both procedural teachers."""
    names = ("procedural", "procedural_instructions")
    return [PLUGINS.pick("teachers", name).component(**settings) for name in names]


def careful(**options: Any) -> MockTeacher:
    """A mock that always thinks aloud."""
    return MockTeacher(**{"teachers": teachers(terse_fraction=0.0)} | options)


def label(prompt: str = "p1", sample: int = 0, attempt: int = 0, seed: int = 17) -> dict[str, str]:
    """The headers of a request."""
    parts = (seed, prompt, sample, attempt)
    return KEY | {"X-Client-Request-Id": "/".join(quote(str(part), safe="") for part in parts)}


def question(text: str = QUESTION, *, stream: bool = False, **more: Any) -> dict[str, Any]:
    """The body of a request to either API."""
    body: dict[str, Any] = {
        "model": "m",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 9_999,
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body | more


async def ask(
    session: aiohttp.ClientSession,
    served: Served,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    path: str = "/chat/completions",
    within_s: float = 60.0,
) -> tuple[int, bytes]:
    """Status and body."""
    async with (
        asyncio.timeout(within_s),
        session.post(served.url + path, json=body or question(), headers=headers or label()) as reply,
    ):
        return reply.status, await reply.read()


def with_server(
    mock: MockTeacher, story: Callable[[aiohttp.ClientSession, Served], Awaitable[Any]]
) -> tuple[Any, Served]:
    """What the story returned, and the server that it was told to, now ended."""

    async def run() -> tuple[Any, Served]:
        async with serve(mock) as served, aiohttp.ClientSession() as session:
            return await story(session, served), served

    return asyncio.run(run())


def events(body: bytes) -> list[dict[str, Any]]:
    """The JSON of server-sent events."""
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    return [orjson.loads(line) for line in lines if line != b"[DONE]"]


def joined(body: bytes) -> dict[str, Any]:
    """The message that a stream of chat completions makes up, with its finish reason and usage."""
    message: dict[str, Any] = {}
    finish, usages = None, []
    for event in events(body):
        usages += [event["usage"]] if event.get("usage") else []
        for choice in event["choices"]:
            finish = choice["finish_reason"] or finish
            for name, piece in choice["delta"].items():
                if isinstance(piece, list):
                    message.setdefault(name, []).extend(piece)
                elif name != "role":
                    message[name] = message.get(name, "") + (piece or "")
    return {"message": message, "finish_reason": finish, "usages": usages}


def joined_blocks(body: bytes) -> dict[str, Any]:
    """The same of Anthropic's messages."""
    texts: dict[str, str] = {}
    whole: dict[str, Any] = {}
    for event in events(body):
        if event["type"] == "content_block_delta":
            delta = event["delta"]
            for name in {"thinking", "text"} & set(delta):
                texts[name] = texts.get(name, "") + delta[name]
        elif event["type"] == "message_delta":
            whole = {"stop_reason": event["delta"]["stop_reason"], "usage": event.get("usage")}
    return {"texts": texts, **whole}


def blocks(content: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Anthropic's blocks by their type."""
    return {block["type"]: block[block["type"]] for block in content}
