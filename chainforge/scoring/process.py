"""A reward in a process of its own: one worker, started when first needed, killed when it hangs."""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any

from chainforge.errors import ChainForgeError
from chainforge.scoring import worker
from chainforge.scoring.arguments import Arguments, Log
from chainforge.scoring.limits import TimeOut
from chainforge.scoring.reward import CallFailed, WeightedReward

START = "see that the plugin can be imported on its own, and soon"
STARTUP_S = 60.0  # to import the plugin and what it needs; not part of a call's time
CLOSING_S = 1.0  # to run what the reward registered for its end
COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); descriptor = int(sys.argv.pop(1)); "
    f"from {worker.__name__} import main; main(descriptor)"
)

Values = list[float | None]
Job = tuple[Future[Values], Arguments, float, Log]


class RewardProcess:
    """Answers calls in order. One thread owns the process: on Linux it dies with its maker."""

    def __init__(self, reward: WeightedReward) -> None:
        self._reward = reward
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._busy = False

    def submit(self, arguments: Arguments, seconds: float, log: Log) -> Future[Values]:
        """Start a call; its future holds the values or the error."""
        future: Future[Values] = Future()
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self._reward.who, daemon=True)
            self._thread.start()
        self._jobs.put((future, arguments, seconds, log))
        return future

    def close(self) -> None:
        """End the process, at once if it is in a call. A later call starts another."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with contextlib.suppress(Empty):
            while job := self._jobs.get_nowait():
                job[0].cancel()
        self._jobs.put(None)
        while thread.is_alive() and thread is not threading.current_thread():
            if self._busy:
                self._kill()
            thread.join(0.05)

    def _serve(self) -> None:
        try:
            while job := self._jobs.get():
                future, arguments, seconds, log = job
                if future.set_running_or_notify_cancel():
                    self._busy = True
                    try:
                        future.set_result(self._call(arguments, seconds, log))
                    except BaseException as error:
                        future.set_exception(error)
                    self._busy = False
        finally:
            self._stop()

    def _call(self, arguments: Arguments, seconds: float, log: Log) -> Values:
        who, count = self._reward.who, arguments.count
        connection = self._started(log)
        try:
            with self._killed_after(seconds):
                connection.send_bytes(pickle.dumps((arguments, seconds)))
                kind, *rest = self._answer(connection, log)
        except TimeOut:
            self._stop(now=True)
            raise self._reward.took_too_long(seconds, count) from None
        except (EOFError, OSError):
            raise CallFailed(
                f"{who} ended its process ({self._ending()}) in a call for {count} completions",
                "it must return, not exit; a signal means a fault in its native code, or too little memory",
            ) from None
        except BaseException:
            self._stop(now=True)
            raise
        if kind == "values":
            return list(rest[0])
        raise (CallFailed if kind == "failed" else ChainForgeError)(*rest)

    def _started(self, log: Log) -> Connection:
        """The connection to a process that has loaded the reward."""
        if self._connection and self._process and self._process.poll() is None:
            return self._connection
        self._stop()
        what = pickle.dumps((self._reward.who, pickle.dumps(self._reward.load)))
        self._connection, theirs = Pipe()
        path = json.dumps(sys.path, default=str)
        command = [sys.executable, "-P", "-c", COMMAND, path, str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
            )
        try:
            with self._killed_after(STARTUP_S):
                self._connection.send_bytes(what)
                kind, *reason = self._answer(self._connection, log)
        except TimeOut:
            kind, reason = "late", [f"{self._reward.who} did not load within {STARTUP_S:g} s", START]
        except (EOFError, OSError):
            kind, reason = (
                "gone",
                [f"{self._reward.who} ended its process ({self._ending()}) as it loaded", START],
            )
        if kind != "ready":
            self._stop(now=True)
            raise ChainForgeError(*reason)
        return self._connection

    @contextlib.contextmanager
    def _killed_after(self, seconds: float) -> Iterator[None]:
        """Kill the process after so many seconds, which ends all waiting to write or to read: TimeOut."""
        late = threading.Event()

        def ring() -> None:
            late.set()
            self._kill()

        timer = threading.Timer(seconds, ring)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (EOFError, OSError):
            if late.is_set():
                raise TimeOut from None
            raise
        finally:
            timer.cancel()
            timer.join()  # it must not kill the next process

    def _answer(self, connection: Connection, log: Log) -> list[Any]:
        """The answer to a call, logging on the way. Raises EOFError where the process ended."""
        while True:
            while not connection.poll(0.1):
                if self._process is None or (self._process.poll() is not None and not connection.poll()):
                    raise EOFError  # what it left behind may still hold the connection open
            match json.loads(connection.recv_bytes()):
                case "log", name, value:
                    log(name, value)
                case message:
                    return list(message)

    def _ending(self) -> str:
        """How the process ended, which it has or is about to. Nothing of it is left."""
        process = self._process
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(CLOSING_S) if process else 0
            self._stop(now=True)
            name = next((signal.Signals(s).name for s in signal.Signals if s == -code), f"signal {-code}")
            return f"killed by {name}" if code < 0 else f"exit code {code}"
        self._stop(now=True)
        return "it closed its connection"

    def _kill(self) -> None:
        """End the process and all that it started, now."""
        if process := self._process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _stop(self, *, now: bool = False) -> None:
        """Let an idle process end by itself, or kill it."""
        if self._connection:
            self._connection.close()
        if self._process and not now:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSING_S)
        self._kill()
        self._connection = self._process = None
