"""A chat server for tests that can speak as badly as real ones do: plain sockets, every byte chosen here.

It shares no code with what it tests. What it wrote, delivered and billed is in a ledger of its own.
"""

import asyncio
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Self

USD = {"hit": 0.15, "miss": 0.15, "output": 0.6}  # per million tokens
RESET, CLOSE, HANG = "reset", "close", "hang"
Step = bytes | float | str  # bytes to send, seconds to wait, or one of the three above


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request: the text of its last message, how often that came before, its JSON, and the key."""

    prompt: str
    number: int
    body: Mapping[str, Any]
    key: str = ""

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A response, and what the server takes for it: tokens in and out. `mark` is a text that only it has."""

    steps: Sequence[Step]
    tokens: tuple[int, int] = (0, 0)
    mark: str = ""
    fault: str = ""


@dataclass(slots=True, kw_only=True)
class Entry:
    """A line of the ledger. `whole` says whether all that was to be said was sent."""

    prompt: str
    said: Said
    whole: bool = False

    @property
    def usd(self) -> Decimal:
        taken, written = self.said.tokens
        return (taken * Decimal(str(USD["miss"])) + written * Decimal(str(USD["output"]))) / 1_000_000


@dataclass
class OddServer:
    """Answers in a thread of its own while it is entered. Its ledger is complete once it is left.

    While `gate` is not set, requests behind the first `free` wait for it.
    """

    answers: Callable[[Asked], Said]
    free: int = 1 << 60
    gate: threading.Event = field(default_factory=threading.Event)
    ledger: list[Entry] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    port: int = 0
    _talks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def usd(self) -> Decimal:
        """All that was billed."""
        return sum((entry.usd for entry in self.ledger), Decimal(0))

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True)
        self._thread.start()
        assert started.wait(60), "the server does not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(60)

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0, backlog=1000, limit=1 << 24)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._end.wait()
        server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, request after request."""
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer):
                    pass
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._talks.discard(task)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read a request and answer it; whether there may be another on this connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        names = (line.partition(":") for line in head.split("\r\n")[1:])
        headers = {name.casefold(): value.strip() for name, _, value in names}
        text = await reader.readexactly(int(headers.get("content-length", 0)))
        if not head.startswith("POST "):
            writer.write(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n")
            return True
        body = json.loads(text)
        prompt = str(body["messages"][-1]["content"])
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        asked = Asked(prompt=prompt, number=self.seen[prompt], body=body, key=key)
        self.seen[prompt] += 1
        entry = Entry(prompt=prompt, said=self.answers(asked))
        self.ledger.append(entry)
        place = len(self.ledger)
        while place > self.free and not self.gate.is_set():
            await asyncio.sleep(0.01)
        for step in entry.said.steps:
            if step == RESET:
                own: socket.socket = writer.get_extra_info("socket")
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            elif step == HANG:
                await reader.read()  # until the client hangs up
                return False
            elif isinstance(step, float):
                await asyncio.sleep(step)
            elif isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            if isinstance(step, str):
                entry.whole = step == CLOSE
                if step == CLOSE:
                    writer.close()
                    await writer.wait_closed()
                return False
        entry.whole = True
        return True


def http(status: int, body: bytes, headers: Mapping[str, str] | None = None, reason: str = "-") -> bytes:
    """A response in order."""
    lines = {"content-type": "application/json", "content-length": str(len(body))} | dict(headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value != "")
    return f"HTTP/1.1 {status} {reason}\r\n{head}\r\n".encode("latin-1") + body
