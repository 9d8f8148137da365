"""A time limit for code that runs in this thread, and that may do whatever it likes about it."""

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from chainforge.containment import farewells, real_exit

INSIST_S = 0.5  # the alarm rings again at this interval: code may have caught the first one
GIVE_UP_S = 10.0  # after the limit; then the program ends, because nothing else stops the code
LAST_S = 5.0  # after that, for code that holds the interpreter's lock, so that no Python thread can run


class TimeOut(BaseException):
    """Raised inside a reward that took too long; not an Exception, so that it does not swallow it."""


@contextmanager
def time_limit(seconds: float, message: str = "time is over", give_up_s: float = GIVE_UP_S) -> Iterator[None]:
    """Raise TimeOut in the block after `seconds`, again and again, and at its end if it took longer.

    Where the block goes on regardless, the program ends with the message: at any moment nothing is lost.
    Main thread of a platform with timers only.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    deadline = time.monotonic() + seconds
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    before = signal.signal(signal.SIGALRM, _ring)
    watchdog = _watchdog(seconds + give_up_s, message)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds, INSIST_S)
            yield
        finally:
            _disarm(before, mask, watchdog)
    except TimeOut:  # also one that rang while the block was left
        _disarm(before, mask, watchdog)
        raise
    if time.monotonic() > deadline:
        raise TimeOut


def _ring(_signal: int, _frame: FrameType | None) -> None:
    raise TimeOut


def _disarm(before: object, mask: set[int | signal.Signals], watchdog: Callable[[], None]) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    watchdog()
    signal.signal(signal.SIGALRM, signal.SIG_IGN)  # drops one that is still pending
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    signal.signal(signal.SIGALRM, before)  # type: ignore[arg-type]  # as `signal.signal` gave it


def _watchdog(seconds: float, message: str) -> Callable[[], None]:
    """End the program after `seconds`, unless the function that is returned is called before."""
    over = threading.Event()

    def watch() -> None:
        if not over.wait(min(seconds, threading.TIMEOUT_MAX)):
            with suppress(Exception):
                os.write(2, f"\n{message}\n".encode())
            for farewell in farewells:
                farewell()
            real_exit(1)

    threading.Thread(target=watch, name="time limit", daemon=True).start()
    native = False
    with suppress(Exception):  # no stderr, or one without a descriptor
        faulthandler.dump_traceback_later(seconds + LAST_S, exit=True, file=sys.__stderr__ or 2)
        native = True

    def stop() -> None:
        over.set()
        if native:
            faulthandler.cancel_dump_traceback_later()

    return stop
