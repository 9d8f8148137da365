"""What runs beside the calling thread: one event loop for async rewards, and the rewards' own processes."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

from chainforge.scoring.process import RewardProcess
from chainforge.scoring.processes import RewardProcesses
from chainforge.scoring.reward import WeightedReward


class EventThread:
    """One event loop in a thread. It outlives a step, so that clients which a reward keeps stay usable."""

    def __init__(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="rewards", daemon=True)
        self._thread.start()
        ready.wait()

    def submit(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Start a coroutine; its future holds what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Cancel what runs, and end the thread; one that is stuck ends with the program."""
        self._loop.call_soon_threadsafe(self._closing.set)
        if self._thread is not threading.current_thread():
            self._thread.join(1.0)

    def _run(self, ready: threading.Event) -> None:
        async def live() -> None:
            self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
            ready.set()
            await self._closing.wait()

        asyncio.run(live())  # cancels the other tasks at its end


class Background:
    """Everything of a scorer that must be closed. Each part starts when it is first needed."""

    def __init__(self) -> None:
        self._events: EventThread | None = None
        self._processes: dict[str, RewardProcess | RewardProcesses] = {}
        self.keys: frozenset[str] = frozenset()  # variables that no process of a reward gets

    @property
    def events(self) -> EventThread:
        """The event loop of all async rewards."""
        self._events = self._events or EventThread()
        return self._events

    def give_up_events(self) -> None:
        """Leave a loop that a reward blocks; the next call gets another."""
        self._events = None

    def process(self, reward: WeightedReward) -> RewardProcess | RewardProcesses:
        """The process of that reward, or its processes."""
        if reward.name not in self._processes:
            kind = RewardProcesses if reward.options.each_s else RewardProcess
            self._processes[reward.name] = kind(reward, self.keys)
        return self._processes[reward.name]

    def close(self) -> None:
        """End the threads and processes. What is needed later starts again."""
        processes, self._processes = self._processes, {}
        for process in processes.values():
            process.close()
        events, self._events = self._events, None
        if events:
            events.close()
