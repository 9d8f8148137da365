"""One process at a time, and a message that names the one that was first."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from chainforge.errors import ChainForgeError


@contextmanager
def exclusive(path: Path, step: str) -> Iterator[None]:
    """Hold the lock file; the operating system lets go of it when this process dies, however it dies.

    Raises ChainForgeError that names the process which has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(path, timeout=0), path.with_name(path.name + ".owner")
    try:
        lock.acquire()
    except Timeout:
        raise ChainForgeError(
            f"{step} is already running: {_read(owner)}",
            "wait for it to end, or stop it (kill PID: it saves its work first), then run again",
        ) from None
    try:
        owner.write_text(f"PID {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        lock.release()


def _read(owner: Path) -> str:
    try:
        return owner.read_text(encoding="utf-8").strip()
    except OSError:  # it has only just started
        return "another process"
