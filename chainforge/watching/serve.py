"""The page on 127.0.0.1: one address, for browsers on this machine, and nothing can be changed by it."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from chainforge.errors import ChainForgeError
from chainforge.watching.page import POLICY, render_page
from chainforge.watching.run import Run

HOST = "127.0.0.1"
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def serve(look_now: Callable[[], Run], every: float, port: int, began: Callable[[str], None]) -> None:
    """Answer until KeyboardInterrupt. `began` gets the address. Raises ChainForgeError for a port in use."""
    with make_server(look_now, every, port) as server:
        began(f"http://{HOST}:{server.server_port}/")
        server.serve_forever()


def make_server(look_now: Callable[[], Run], every: float, port: int) -> ThreadingHTTPServer:
    """A server that does not answer yet."""
    turn = threading.Lock()  # of several tabs, one at a time

    class Handler(BaseHTTPRequestHandler):
        """GET / only. A page of another site that calls itself by another name is refused: its scripts could
        read what is shown."""

        timeout = 30

        def do_GET(self) -> None:
            if self.headers.get("Host", "").rpartition(":")[0] not in (HOST, "localhost"):
                self.answer(403, "ask for 127.0.0.1\n")
            elif self.path.partition("?")[0] != "/":
                self.answer(404, "there is one page: /\n")
            else:
                with turn:
                    page = render_page(look_now(), every)
                self.answer(200, page)

        def answer(self, status: int, text: str) -> None:
            body = text.encode(errors="replace")
            self.send_response(status)
            for name, value in HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing: the terminal is for the address."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise ChainForgeError(
            f"port {port} cannot be used: {error.strerror}", "take another: --port 0 finds a free one"
        ) from error
