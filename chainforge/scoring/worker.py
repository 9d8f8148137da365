"""The other end of a reward's own process: it loads one reward and answers one call after another.

Calls arrive pickled; answers go back as JSON. What the reward prints goes where the parent's prints go.
"""

import asyncio
import contextlib
import ctypes
import faulthandler
import json
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from chainforge.errors import ChainForgeError, describe
from chainforge.scoring.arguments import Arguments, Log, wait_for_all
from chainforge.scoring.reward import reward_error
from chainforge.scoring.takes import wrong_shape
from chainforge.scoring.values import check_values

PR_SET_PDEATHSIG = 1  # Linux: a signal when the thread that started this process is gone
GRACE_S = 2.0  # if the parent is gone, this process ends itself this long after its limit


def main(descriptor: int) -> None:
    """Serve until the parent closes the connection or dies; then end, whatever the reward is doing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to decide about
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(
            PR_SET_PDEATHSIG, signal.SIGKILL
        )  # it reaches C code too, which runs no signal handler of Python
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    frames: SimpleQueue[bytes | None] = SimpleQueue()
    threading.Thread(target=_read, args=(connection, frames), daemon=True).start()
    lock = threading.Lock()  # a reward may log from threads of its own

    def send(*message: Any) -> None:
        frame = json.dumps(message, default=str).encode()
        with lock:
            connection.send_bytes(frame)

    def log(name: str, value: Any) -> None:
        send("log", name, value)

    if (first := frames.get()) is None:
        return
    who, load = pickle.loads(first)
    try:
        function = pickle.loads(load)()
    except ChainForgeError as error:
        return send("wrong", f"{who} does not load: {error.problem}", error.fix)
    except BaseException as error:
        reason = describe(error)
        return send("wrong", f"{who} does not load in a process of its own: {reason}", "mend the plugin")
    send("ready")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with asyncio.Runner() as runner:  # one event loop for all calls: clients that a reward keeps stay usable
        while (frame := frames.get()) is not None:
            arguments, seconds, each = pickle.loads(frame)
            for part in map(arguments.one, range(arguments.count)) if each else [arguments]:
                faulthandler.dump_traceback_later(seconds + GRACE_S, exit=True, file=nowhere)
                answer = _answer(who, function, part, log, runner)
                try:
                    send(*answer)
                except (
                    OSError
                ):  # the reward closed every descriptor: the parent sees that the connection ended
                    os._exit(1)
                faulthandler.cancel_dump_traceback_later()


def _answer(
    who: str, function: Callable[..., Any], arguments: Arguments, log: Log, runner: asyncio.Runner
) -> tuple[Any, ...]:
    try:
        values = arguments.call(function, log)
        if arguments.waits(values):
            values = runner.run(wait_for_all(values))
    except BaseException as error:  # SIGINT is ignored here: none is the user's
        failure = reward_error(who, error, wrong_shape(error, conversational=arguments.conversational))
        return "failed", failure.problem, failure.fix
    finally:
        with contextlib.suppress(Exception):  # the reward may have closed or replaced it
            sys.stdout.flush()
    try:
        return "values", check_values(who, values, arguments.count)
    except ChainForgeError as error:
        return "wrong", error.problem, error.fix


def _read(connection: Connection, frames: "SimpleQueue[bytes | None]") -> None:
    """Pass on what arrives. At the end of it leave the main thread a moment, then end the process."""
    try:
        while True:
            frames.put(connection.recv_bytes())
    except (EOFError, OSError):
        frames.put(None)
    time.sleep(GRACE_S / 2)
    os._exit(1)
