"""Asked to stop, by Ctrl-C, SIGTERM or the death of dvc: note it, and let the work be saved first."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from chainforge.errors import ChainForgeError


class Stopped(ChainForgeError):
    """The step was asked to stop, and stopped where it can go on."""


class Stopping:
    """`reason` is why the step should stop, once it should."""

    def __init__(self) -> None:
        self._signal: str | None = None
        self._parent = os.getppid() if "DVC_STAGE" in os.environ else None

    @property
    def reason(self) -> str | None:
        """None to go on."""
        if self._parent and os.getppid() != self._parent:
            return "dvc is gone"
        return self._signal

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the first SIGINT or SIGTERM; the second one ends the process as usual. Main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signal = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.write(sys.stderr.fileno(), b"\nstopping as soon as the work is saved; again to stop at once\n")
