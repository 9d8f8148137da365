"""Does the sandbox of this machine hold? Tried once per process, by a program that wants out."""

import json
import os
import socket
import tempfile
from functools import cache

from chainforge.errors import ChainForgeError
from chainforge.sandbox.run import run_program

ATTEMPTS = """
import ctypes, json, os, socket
file, port, pid = json.loads(input())
found = []
def attempt(what, do):
    try:
        if do() is not False:
            found.append(what)
    except OSError:
        pass
def connect(family, address):
    with socket.socket(family) as one:
        one.settimeout(2)
        one.connect(address)
attempt("reads files of the host", lambda: open(file).close())
attempt("reads /etc", lambda: os.listdir("/etc"))
attempt("sees processes", lambda: os.listdir("/proc"))
attempt("writes to the root folder", lambda: open("/x", "w").close())
attempt("writes to the system's libraries", lambda: open("/usr/lib/x", "w").close())
attempt("reaches the network", lambda: connect(socket.AF_INET, ("127.0.0.1", port)))
attempt("reaches the host of a virtual machine", lambda: connect(socket.AF_VSOCK, (2, port)))
attempt("reaches processes of the host", lambda: os.kill(pid, 0))
attempt("makes namespaces", lambda: ctypes.CDLL(None).unshare(0x10000000) == 0)
attempt("is root", lambda: os.getuid() == 0)
attempt("knows variables of the host", lambda: "CHAINFORGE_PROBE" in os.environ)
def fork():
    for _ in range(64):
        if not (child := os.fork()):
            os.read(reading, 1)
            os._exit(0)
reading, writing = os.pipe()
attempt("starts processes without a bound", fork)
os.close(writing)
print(json.dumps(found))
"""


@cache
def check_sandbox() -> None:
    """Raise ChainForgeError unless foreign programs can be run here without harm."""
    with tempfile.NamedTemporaryFile() as file, socket.create_server(("127.0.0.1", 0)) as server:
        os.chmod(file.name, 0o644)
        given = json.dumps([file.name, server.getsockname()[1], os.getpid()])
        outcome = run_program(ATTEMPTS, given)
    try:
        found = json.loads(outcome.output)
    except ValueError:
        raise ChainForgeError(
            f"the sandbox cannot be tried: {outcome.kind}, {outcome.said}",
            "see that the system's Python works",
        ) from None
    if found:
        raise ChainForgeError(
            f"the sandbox of this machine does not hold: a program in it {', '.join(found)}",
            "do not run foreign code here; another version of bubblewrap, or another machine",
        )
