"""A time limit for what happens in another process: a thread kills it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chainforge.scoring.limits import TimeOut


@contextmanager
def killed_after(seconds: float, kill: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Kill after `seconds`, which ends all waiting to write or to read: TimeOut.

    What is yielded gives as many seconds again.
    """
    late, done = threading.Event(), threading.Event()
    deadline = time.monotonic() + seconds

    def again() -> None:
        nonlocal deadline
        deadline = time.monotonic() + seconds

    def watch() -> None:
        while (left := deadline - time.monotonic()) > 0:
            if done.wait(left):
                return
        late.set()
        kill()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield again
    except (EOFError, OSError):
        if late.is_set():
            raise TimeOut from None
        raise
    finally:
        done.set()
        watcher.join()  # or it would kill the next process
