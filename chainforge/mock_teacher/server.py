"""The life of one request: let in or refused, answered or failed, sent and written down."""

import asyncio
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping

from aiohttp import web

from chainforge.mock_teacher.dialects import DIALECTS, Dialect
from chainforge.mock_teacher.ledger import NOTHING, Entry, Ledger
from chainforge.mock_teacher.mock import Deal, MockTeacher, deal
from chainforge.mock_teacher.request import LABEL_HEADER, Label, Refusal, read_request
from chainforge.mock_teacher.response import Response, make_json

MINUTE_S = 60.0
SETTLE_S = 0.02  # for what was written to arrive before the connection goes
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # linger for 0 seconds


class Limits:
    """How many requests are let in, at a time and per minute. Whoever comes above is refused at once."""

    def __init__(
        self,
        cap: int | None,
        rpm: int | None,
        retry_after_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cap = cap
        self.rpm = rpm
        self.retry_after_s = retry_after_s
        self.in_flight = 0
        self._clock = clock
        self._recent: deque[float] = deque()

    def enter(self) -> None:
        """Let one in. Raises Refusal with 429."""
        if self.cap is not None and self.in_flight >= self.cap:
            raise Refusal(429, f"more than {self.cap} requests at a time", self.retry_after_s)
        if self.rpm is not None:
            now = self._clock()
            while self._recent and self._recent[0] <= now - MINUTE_S:
                self._recent.popleft()
            if len(self._recent) >= self.rpm:
                raise Refusal(429, f"more than {self.rpm} requests a minute", self.retry_after_s)
            self._recent.append(now)
        self.in_flight += 1

    def leave(self) -> None:
        """One is done."""
        self.in_flight -= 1


class Server:
    """A mock teacher at work: its accounts, its limits, and the conversations that came without a label."""

    def __init__(self, mock: MockTeacher) -> None:
        self.mock = mock
        self.dialect = DIALECTS[mock.dialect]
        self.ledger = Ledger(mock.ledger)
        self.limits = Limits(mock.cap, mock.rpm, mock.retry_after_s)
        self.open: set[asyncio.Task[None]] = set()
        self._arrived = 0
        self._asked: Counter[str] = Counter()

    async def serve(self, request: web.Request, dialect: Dialect) -> web.StreamResponse:
        """Send this request's answer, or its fault, in that dialect."""
        body = await request.read()
        self._arrived += 1
        number, delivered = self._arrived, False
        admitted, dealt = self._deal(request.headers, body, dialect, number)
        task = asyncio.current_task()
        assert task is not None
        self.open.add(task)
        try:
            if dealt.response.status == 200 and self.mock.latency_s:
                await asyncio.sleep(self.mock.latency_s)
            response = await send(request, dealt.response)
            delivered = dealt.whole
            return response
        except ConnectionError:
            return web.Response()  # nobody is there to read it
        finally:
            self.open.discard(task)
            if admitted:
                self.limits.leave()
            self._write_down(number, dealt, delivered)

    def _deal(
        self, headers: Mapping[str, str], body: bytes, dialect: Dialect, number: int
    ) -> tuple[bool, Deal]:
        """Whether the request was let in, and what it gets."""
        admitted, label = False, None
        try:
            self._check_key(headers)
            request = read_request(body, headers.get(LABEL_HEADER))
            label = request.label or self._make_label(request.conversation)
            self.limits.enter()
            admitted = True
            self.ledger.peak_in_flight = max(self.ledger.peak_in_flight, self.limits.in_flight)
            return admitted, deal(self.mock, request, label, dialect, number)
        except Refusal as refusal:
            error = dialect.write_error(refusal.status, refusal.message)
            response = make_json(error, refusal.status, refusal.retry_after_s)
            return admitted, Deal(response=response, label=label)

    def _make_label(self, conversation: str) -> Label:
        """For a request that has none: the same conversation again is a further attempt."""
        self._asked[conversation] += 1
        return Label(int(conversation, 16), conversation, 0, self._asked[conversation] - 1)

    def _check_key(self, headers: Mapping[str, str]) -> None:
        """Raises Refusal with 401."""
        key = headers.get("Authorization", "").removeprefix("Bearer").strip() or headers.get("x-api-key", "")
        if not key or self.mock.key not in (None, key):
            raise Refusal(401, "Authentication Fails, the key is missing or not valid")

    def _write_down(self, number: int, dealt: Deal, delivered: bool) -> None:
        draft = dealt.draft
        entry = Entry(
            number=number,
            label=dealt.label,
            fault=dealt.fault.name if dealt.fault else None,
            status=dealt.response.status,
            finish=draft.finish if draft else None,
            usage=draft.usage if draft else None,
            cost=self.mock.prices.cost(draft.usage, "off-peak") if draft else NOTHING,
            delivered=delivered,
            billed=draft is not None,
        )
        self.ledger.add(entry)


async def send(request: web.Request, planned: Response) -> web.StreamResponse:
    """Send it as planned, down to how the connection ends. Raises ConnectionError if the client has left."""
    headers = {"Content-Type": planned.content_type, **planned.headers}
    response = web.StreamResponse(status=planned.status, headers=headers)
    if planned.ending == "hang":
        await asyncio.Event().wait()  # until the client leaves, or the server ends
    if planned.ending != "reset" or planned.pieces:
        response.content_length = planned.length
        await response.prepare(request)
        await _write(response, planned.silence, planned.silence_s)
        while planned.ending == "endless":
            await _write(response, planned.silence, planned.silence_s)
        if planned.ending == "whole" and not planned.pause_s:
            await response.write_eof(planned.body)
            return response
        await _write(response, planned.pieces if planned.pause_s else (planned.body,), planned.pause_s)
    if planned.ending == "whole":
        await response.write_eof()
        return response
    await asyncio.sleep(SETTLE_S)
    _hang_up(request, reset=planned.ending == "reset")
    return response


async def _write(response: web.StreamResponse, pieces: Iterable[bytes], pause_s: float) -> None:
    """One piece each `pause_s` by the clock: a late one is not waited for, nor does it delay the next.

    The pause comes first: nobody waits once the last byte is out, for then the client may leave.
    """
    clock = asyncio.get_running_loop().time
    start = clock()
    for number, piece in enumerate(pieces, start=1):
        await asyncio.sleep(max(0.0, start + number * pause_s - clock()))
        await response.write(piece)


def _hang_up(request: web.Request, *, reset: bool) -> None:
    transport = request.transport
    if transport is None:
        return
    if reset:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        transport.abort()
    else:
        transport.close()
