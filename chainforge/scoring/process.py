"""A reward in a process of its own: one worker, started when first needed, killed when it hangs."""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import threading
from collections.abc import Collection
from concurrent.futures import Future
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any

from chainforge.errors import ChainForgeError
from chainforge.providers.secrets import environment_without_keys
from chainforge.scoring.alarm import killed_after
from chainforge.scoring.arguments import Arguments, Log
from chainforge.scoring.limits import TimeOut
from chainforge.scoring.reward import CallFailed, WeightedReward, counted
from chainforge.scoring.start_worker import ending, start_worker
from chainforge.scoring.values import check_values

START = "see that the plugin can be imported on its own, and soon"
STARTUP_S = 60.0  # to import the plugin; not counted as time of a call
LONGEST = 1 << 30  # bytes of one answer
CLOSING_S = 1.0  # to run what the reward registered for its end
Outcomes = list[float | CallFailed | None]
Job = tuple[Future[Outcomes], Arguments, float, Log, bool]


class RewardProcess:
    """Answers calls in order. One thread owns the process: on Linux it dies with its maker."""

    def __init__(self, reward: WeightedReward, keys: Collection[str] = ()) -> None:
        self._reward, self._keys = reward, keys
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._busy = False

    def submit(
        self, arguments: Arguments, seconds: float, log: Log, *, each: bool = False
    ) -> Future[Outcomes]:
        """Start a call; its future holds the values or the error.

        With `each`, the seconds are for one, and the future has a value or failure for each, up to its end.
        """
        future: Future[Outcomes] = Future()
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self._reward.who, daemon=True)
            self._thread.start()
        self._jobs.put((future, arguments, seconds, log, each))
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
                future, arguments, seconds, log, each = job
                if future.set_running_or_notify_cancel():
                    self._busy = True
                    try:
                        outcomes = self._call(arguments, seconds, log, each)
                        if not each and outcomes and isinstance(outcomes[0], CallFailed):
                            raise outcomes[0]
                        future.set_result(outcomes)
                    except BaseException as error:
                        future.set_exception(error)
                    self._busy = False
        finally:
            self._stop()

    def _call(self, arguments: Arguments, seconds: float, log: Log, each: bool) -> Outcomes:
        """What comes back, as far as the process came: if it ended or had to, the last one is the failure."""
        counts = [1] * arguments.count if each else [arguments.count]
        outcomes: Outcomes = []
        connection = self._started(log)
        try:
            with killed_after(seconds, self._kill) as again:
                connection.send_bytes(pickle.dumps((arguments, seconds, each)))
                for count in counts:
                    outcomes += self._understood(self._answer(connection, log), count)
                    again()
        except TimeOut:
            self._stop(now=True)
            return [*outcomes, self._reward.took_too_long(seconds, counts[0])]
        except (EOFError, OSError):
            failure = CallFailed(
                f"{self._reward.who} ended its process ({self._ending()}) in a call for {counted(counts[0])}",
                "it must return, not exit; a signal means a fault in its native code, or too little memory",
            )
            return [*outcomes, failure]
        except CallFailed as error:
            return [*outcomes, error]
        except BaseException as error:
            if each or not isinstance(error, ChainForgeError):  # else it has nothing more to say
                self._stop(now=True)
            raise
        return outcomes

    def _understood(self, message: list[Any], count: int) -> Outcomes:
        match message:
            case "values", values:
                return list(check_values(self._reward.who, values, count))
            case "failed", str(problem), str(fix):
                return [CallFailed(problem, fix)]
            case "wrong", str(problem), str(fix):
                raise ChainForgeError(problem, fix)
        raise self._garbled()

    def _started(self, log: Log) -> Connection:
        """The connection to a process that has loaded the reward."""
        if self._connection and self._process and self._process.poll() is None:
            return self._connection
        self._stop()
        what = pickle.dumps((self._reward.who, pickle.dumps(self._reward.load)))
        keep = self._reward.options.keys
        self._process, self._connection = start_worker(environment_without_keys(self._keys, keep))
        try:
            with killed_after(STARTUP_S, self._kill):
                self._connection.send_bytes(what)
                kind, *reason = self._answer(self._connection, log)
        except TimeOut:
            kind, reason = "late", [f"{self._reward.who} did not load within {STARTUP_S:g} s", START]
        except (EOFError, OSError):
            ended = f"{self._reward.who} ended its process ({self._ending()}) as it loaded"
            kind, reason = "gone", [ended, START]
        if kind != "ready":
            self._stop(now=True)
            raise ChainForgeError(*(reason if len(reason) == 2 else (f"{self._reward.who}: {kind}", START)))
        return self._connection

    def _answer(self, connection: Connection, log: Log) -> list[Any]:
        """The answer to a call, logging on the way. Raises EOFError where the process ended."""
        while True:
            while not connection.poll(0.1):
                if self._process is None or (self._process.poll() is not None and not connection.poll()):
                    raise EOFError  # what it left behind may still hold the connection open
            try:
                message = json.loads(connection.recv_bytes(LONGEST))
            except ValueError:
                raise self._garbled() from None
            match message:
                case ["log", str(name), value]:
                    log(name, value)
                case [str(), *_]:
                    return list(message)
                case _:
                    raise self._garbled()

    def _garbled(self) -> CallFailed:
        """It is not the worker that wrote this: the reward did, to a descriptor that it found."""
        self._stop(now=True)
        return CallFailed(
            f"{self._reward.who} wrote to the connection of its own process",
            "it must not write to descriptors that it did not open",
        )

    def _ending(self) -> str:
        """How the process ended, which it has or is about to. Nothing of it is left."""
        process = self._process
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(CLOSING_S) if process else 0
            self._stop(now=True)
            return ending(code)
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
