"""What dvc sees as the step, under `chainforge repro`: it has the server fork the step, and stands for it.

Run as a plain file by the program `python` of warm_start.py: warm_client.py SOCKET -m stages.VERB STEP.
Signals go on to the step, and it ends as the step does. Without a server it becomes the usual interpreter.
"""

import array
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
KILLED = -signal.SIGKILL


def stand_for(address: str, arguments: Sequence[str]) -> int:
    """Have the step run, and return how it ended, as subprocess would say it."""
    if None in (sys.stdin, sys.stdout, sys.stderr):  # one is closed: the socket would take its number
        os.execv(sys.executable, [sys.executable, *arguments])
    with socket.socket(socket.AF_UNIX) as server:
        try:
            is_taken = _ask(server, address, arguments)
        except KeyboardInterrupt:  # the server is still importing: say what a step would
            step = arguments[2] if len(arguments) > 2 else arguments[1]
            sys.stderr.write(
                f"\n{step}: stopped at once; run the same command again: it goes on from its last save\n"
            )
            return 1
        if not is_taken:
            os.execv(sys.executable, [sys.executable, *arguments])

        def pass_on(number: int, _frame: FrameType | None) -> None:
            with suppress(OSError):
                server.send(bytes([number]))

        signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
        for number in FORWARDED:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, pass_on)
        with suppress(OSError), server.makefile() as answer:
            server.sendall(b"!")  # now let it begin
            signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
            return int(
                answer.readline() or KILLED
            )  # no answer: who waited for the step was killed, and it too
        return KILLED


def _ask(server: socket.socket, address: str, arguments: Sequence[str]) -> bool:
    """Whether the server will run it, with the streams, folder, environment and ignored signals of this."""
    try:
        server.connect(address)
        files = array.array("i", [0, 1, 2])
        server.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
        numbers = signal.valid_signals() - {*IGNORED_BY_PYTHON}
        request = {
            "arguments": arguments,
            "folder": os.getcwd(),
            "environment": dict(os.environ),
            "ignored": [int(number) for number in numbers if signal.getsignal(number) == signal.SIG_IGN],
        }
        server.sendall(json.dumps(request).encode() + b"\n")
        return server.recv(1) == b"+"
    except OSError:  # there is no server, or it has ended
        return False


def end_as(code: int) -> None:
    """End with this code, or by this signal."""
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the step has left one, if wanted
        with suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    end_as(stand_for(sys.argv[1], sys.argv[2:]))
