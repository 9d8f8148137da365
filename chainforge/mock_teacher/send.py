"""Send a response as planned, down to how the connection ends."""

import asyncio
import socket
import struct
from collections.abc import Iterable

from aiohttp import web

from chainforge.mock_teacher.plan import Plan

SETTLE_S = 0.02  # for what was written to arrive before the connection goes
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # linger for 0 seconds


async def send(request: web.Request, plan: Plan) -> tuple[web.StreamResponse, bool]:
    """The response, and whether all of it was sent. Raises ConnectionError if the client has left."""
    response = web.StreamResponse(
        status=plan.status, headers={"Content-Type": plan.content_type, **plan.headers}
    )
    if plan.ending == "hang":
        await asyncio.Event().wait()  # until the client leaves, or the server ends
    if plan.ending != "reset" or plan.pieces:
        response.content_length = plan.length
        await response.prepare(request)
        await _write(response, plan.silence, plan.silence_s)
        while plan.ending == "endless":
            await _write(response, plan.silence, plan.silence_s)
        if plan.ending == "whole" and not plan.pause_s:
            await response.write_eof(plan.body)
            return response, True
        await _write(response, plan.pieces if plan.pause_s else (plan.body,), plan.pause_s)
    if plan.ending == "whole":
        await response.write_eof()
        return response, True
    await asyncio.sleep(SETTLE_S)
    _leave(request, reset=plan.ending == "reset")
    return response, False


async def _write(response: web.StreamResponse, pieces: Iterable[bytes], pause_s: float) -> None:
    """One piece each `pause_s` by the clock: a late one is not waited for, nor does it delay the next.

    The pause comes first: nobody waits once the last byte is out, for then the client may leave.
    """
    clock = asyncio.get_running_loop().time
    start = clock()
    for number, piece in enumerate(pieces, start=1):
        await asyncio.sleep(max(0.0, start + number * pause_s - clock()))
        await response.write(piece)


def _leave(request: web.Request, *, reset: bool) -> None:
    transport = request.transport
    if transport is None:
        return
    if reset:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        transport.abort()
    else:
        transport.close()
