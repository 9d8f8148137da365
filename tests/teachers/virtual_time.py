"""Time that passes only while everybody waits: hours of a collection in a fraction of a second."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class Clock:
    """Monotonic seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Selector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """Instead of waiting, moves the clock on."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits, and nothing will ever happen"
        ready = super().select(0)
        if not ready:
            self._clock.now += max(timeout, 0)
        return ready


def run_on(clock: Clock) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """`asyncio.run` by this clock, for which `time.monotonic` must be patched, too."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Selector(clock))) as runner:
            return runner.run(main)

    return run


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    """`asyncio.to_thread`, without a thread."""
    return function(*arguments)
