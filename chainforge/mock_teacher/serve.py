"""Serve a mock teacher: in this event loop, or in a thread."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from aiohttp import web

from chainforge.errors import ChainForgeError
from chainforge.mock_teacher.dialects import ANTHROPIC
from chainforge.mock_teacher.ledger import Ledger
from chainforge.mock_teacher.mock import MockTeacher
from chainforge.mock_teacher.response import make_json
from chainforge.mock_teacher.server import Server, send

BACKLOG = 4096  # connections that a client opens at once
IDLE_S = 3600.0  # a client decides when to drop a connection, never the server while it sends
LARGEST_BODY = 64 * 2**20
LOCAL = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Served:
    """A running server. Its ledger has a request once its answer was sent, or its client has left."""

    host: str
    port: int
    ledger: Ledger

    @property
    def root(self) -> str:
        """For clients that add /v1 themselves, as Anthropic's does."""
        return f"http://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """For clients of OpenAI's kind."""
        return f"{self.root}/v1"


@asynccontextmanager
async def serve(mock: MockTeacher, *, host: str = LOCAL, port: int = 0) -> AsyncIterator[Served]:
    """Serve until the block ends; then requests that are still open end too. Port 0 is any free one."""
    server = Server(mock)
    runner = web.AppRunner(
        make_app(server),
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=IDLE_S,
        shutdown_timeout=0.01,
    )
    try:
        await runner.setup()
        site = web.TCPSite(runner, host, port, backlog=BACKLOG)
        try:
            await site.start()
        except OSError as error:
            raise ChainForgeError(f"{host}:{port} cannot be served: {error}", "name another port") from error
        yield Served(host, runner.addresses[0][1], server.ledger)
    finally:
        for listening in tuple(runner.sites):
            await listening.stop()
        for task in server.open:
            task.cancel()
        await asyncio.gather(*server.open, return_exceptions=True)
        await runner.cleanup()
        await asyncio.sleep(0)  # what was cancelled ends now
        server.ledger.close()


def make_app(server: Server) -> web.Application:
    """Every path with and without /v1. Anthropic's messages work whatever the dialect of the others."""

    async def serve_chat(request: web.Request) -> web.StreamResponse:
        return await server.serve(request, server.dialect)

    async def serve_messages(request: web.Request) -> web.StreamResponse:
        return await server.serve(request, ANTHROPIC)

    async def serve_ledger(request: web.Request) -> web.StreamResponse:
        return await send(request, make_json(server.ledger.totals().as_json()))

    async def serve_unknown(request: web.Request) -> web.StreamResponse:
        error = server.dialect.write_error(404, f"there is no {request.path}")
        return await send(request, make_json(error, 404))

    app = web.Application(client_max_size=LARGEST_BODY)
    for root in ("", "/v1"):
        if server.dialect is not ANTHROPIC:
            app.router.add_post(f"{root}/chat/completions", serve_chat)
        app.router.add_post(f"{root}/messages", serve_messages)
    app.router.add_get("/mock/ledger", serve_ledger)
    app.router.add_route("*", "/{path:.*}", serve_unknown)
    return app


@contextmanager
def serve_in_thread(mock: MockTeacher, *, host: str = LOCAL, port: int = 0) -> Iterator[Served]:
    """The same in a thread with a loop of its own: for programs that are not asynchronous."""
    started: Future[tuple[Served, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        stop = asyncio.Event()
        async with serve(mock, host=host, port=port) as served:
            started.set_result((served, asyncio.get_running_loop(), stop))
            await stop.wait()

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=work, name="mock-teacher", daemon=True)
    thread.start()
    served, loop, stop = started.result()
    try:
        yield served
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
