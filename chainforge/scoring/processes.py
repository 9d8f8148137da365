"""A reward whose completions are calls of their own: the next one goes to the process that is free."""

import os
import threading
from collections import deque
from collections.abc import Collection
from concurrent.futures import Future
from functools import partial
from typing import Any

from chainforge.scoring.arguments import Arguments, Log
from chainforge.scoring.process import Outcomes, RewardProcess
from chainforge.scoring.reward import CallFailed, WeightedReward

MOST = 8  # processes of one reward
AT_ONCE = 32  # completions that a process is given, so that handing them over costs little


class RewardProcesses:
    """One that hangs or crashes takes its own completion with it; the others go on beside it."""

    def __init__(self, reward: WeightedReward, keys: Collection[str] = ()) -> None:
        self._lenient = reward.options.on_error == "none"
        self._processes = [RewardProcess(reward, keys) for _ in range(min(usable_cores(), MOST))]
        self._closed = threading.Event()

    def submit(self, arguments: Arguments, seconds: float, log: Log) -> "Future[Outcomes]":
        """Start a call for each completion. The future holds a value for each, or why it has none; where
        `on_error` is "raise", the first failure."""
        size = max(1, min(AT_ONCE, arguments.count // (2 * len(self._processes))))
        shares = Shares(arguments, seconds, log, self._lenient, self._closed, size)
        for process in self._processes:
            shares.give(process)
        return shares.all

    def close(self) -> None:
        """End the processes, for good."""
        self._closed.set()
        for process in self._processes:
            process.close()


class Shares:
    """The completions of one call, dealt out some at a time."""

    def __init__(
        self,
        arguments: Arguments,
        seconds: float,
        log: Log,
        lenient: bool,
        closed: threading.Event,
        size: int,
    ) -> None:
        self._arguments, self._seconds, self._log = arguments, seconds, log
        self._lenient, self._closed = lenient, closed
        self._lock = threading.Lock()
        count = arguments.count
        self._left = deque(range(start, min(start + size, count)) for start in range(0, count, size))
        self._outcomes: dict[int, float | CallFailed | None] = {}
        self._logged: dict[int, list[tuple[str, Any]]] = {}
        self.all: Future[Outcomes] = Future()
        if not count:
            self.all.set_result([])

    def give(self, process: RewardProcess) -> None:
        """Have a process that is free do the next ones."""
        with self._lock:
            if self._closed.is_set():
                self.all.cancel()
            if self.all.done() or not self._left:
                return
            places = self._left.popleft()
            logged = self._logged.setdefault(places.start, [])
        call = process.submit(
            self._arguments.some(places), self._seconds, lambda *entry: logged.append(entry), each=True
        )
        call.add_done_callback(partial(self._take, process, places))

    def _take(self, process: RewardProcess, places: range, call: "Future[Outcomes]") -> None:
        with self._lock:
            if self.all.done():
                return
            if call.cancelled():
                self.all.cancel()
            elif error := call.exception():
                self.all.set_exception(error)
            else:
                self._note(places, call.result())
        self.give(process)

    def _note(self, places: range, outcomes: Outcomes) -> None:
        self._outcomes.update(zip(places, outcomes, strict=False))
        failures = [outcome for outcome in outcomes if isinstance(outcome, CallFailed)]
        if failures and not self._lenient:
            self.all.set_exception(failures[0])
        elif len(outcomes) < len(places):
            self._left.appendleft(places[len(outcomes) :])
        elif len(self._outcomes) == self._arguments.count:
            for _, logged in sorted(self._logged.items()):  # in their order, not in that of the processes
                for name, value in logged:
                    self._log(name, value)
            self.all.set_result([self._outcomes[place] for place in range(self._arguments.count)])


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
