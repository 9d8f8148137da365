"""Asked to stop, by Ctrl-C, SIGTERM, SIGHUP or the death of dvc: note it, and let the work be saved first."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

from chainforge.errors import ChainForgeError
from chainforge.run.ending import interrupt
from chainforge.run.world import this_world

SIGNALS: Mapping[int, str] = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}


class Stopped(ChainForgeError):
    """The step was asked to stop, and stopped where it can go on."""


class Stopping:
    """`reason` is why the step should stop, once it should; `at_once`, that it was asked to twice."""

    def __init__(self) -> None:
        self.at_once = False
        self._signal: str | None = None
        self._twice = False
        self._parents = _parents_up_to_dvc()

    @property
    def reason(self) -> str | None:
        """None to go on."""
        if any(not _is_parent(parent, process) for process, parent in self._parents.items()):
            return "dvc is gone"
        return self._signal

    @contextmanager
    def listening(self, *, twice: bool = False) -> Iterator[None]:
        """Catch the first SIGINT, SIGTERM or SIGHUP; the next one ends the process as usual.

        Main thread only. With `twice`, the second is caught, too: for who looks at `at_once` often. Under
        nohup, SIGHUP is nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._twice = twice
        heard = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._note) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGTERM and this_world().is_breaking_up():
            return
        self.at_once = self._signal is not None
        self._signal = self._signal or SIGNALS[number]
        if self.at_once or not self._twice:
            for heard in SIGNALS:
                if signal.getsignal(heard) == self._note:
                    signal.signal(heard, interrupt if heard == signal.SIGINT else signal.SIG_DFL)
        if not self.at_once and this_world().is_first:
            with suppress(OSError, ValueError):  # stderr may be closed
                os.write(
                    sys.stderr.fileno(), b"\nstopping as soon as the work is saved; again to stop at once\n"
                )


def _parents_up_to_dvc() -> dict[psutil.Process, int]:
    """The parents of this process and of the shell that dvc may have put between: dash stays, bash goes."""
    parents: dict[psutil.Process, int] = {}
    process: psutil.Process | None = psutil.Process()
    with suppress(psutil.Error):
        while process and "DVC_STAGE" in process.environ():
            parents[process] = process.ppid()
            process = process.parent()
    return parents


def _is_parent(parent: int, process: psutil.Process) -> bool:
    try:
        return process.ppid() == parent
    except psutil.NoSuchProcess:
        return False
