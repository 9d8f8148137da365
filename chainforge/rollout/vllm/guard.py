"""Run a command, and end it with all that it has started once the parent of this guard lets go of it or dies.

A program of its own, which imports nothing of ours: python guard.py PIPE PARENT COMMAND …. It reads the pipe,
whose other end its parent holds. It ends as the command does, or with 128 and the number of a signal.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import psutil

GRACE_S = 5.0  # after a SIGTERM; then it is killed. A server has nothing to save
LOOK_S = 0.2
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main(argv: Sequence[str]) -> int:
    """Returns once nothing of the command is left."""
    pipe, parent, command = int(argv[0]), int(argv[1]), argv[2:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # it ends when its parent wants it to
    on_linux = sys.platform == "linux"
    libc = ctypes.CDLL(None)
    if on_linux:  # who loses its parent below becomes a child of ours, and so is found
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=(lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)) if on_linux else None,
    )
    while child.poll() is None and os.getppid() == parent:
        if select.select([pipe], [], [], LOOK_S)[0]:
            break
    _end(child)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _end(child: "subprocess.Popen[bytes]") -> None:
    for number, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        for process in _left():  # of another group
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        end = time.monotonic() + patience
        while time.monotonic() < end:
            child.poll()
            if not _left():
                return
            time.sleep(LOOK_S / 4)


def _left() -> list[psutil.Process]:
    """All processes below this one that run."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
