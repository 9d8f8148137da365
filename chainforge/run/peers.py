"""Whether the other processes of the step still live. One that fails or dies ends all within seconds."""

import json
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from chainforge.containment import real_exit
from chainforge.outputs import leave_nothing_partial
from chainforge.run.ending import BEREFT, LAUNCHER, end_with, exit_code, say_last

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

LOOK_S = 0.5  # between two looks at the others
GRACE_S = 3.0  # for this process to end in good order, once another one has failed
BEAT_S = 5.0  # between two signs of life of a machine
LOST_S = 120.0  # without one: a machine is gone. A process that only writes a large file must not look so
FAILED = "chainforge/failed"
Process = Mapping[str, Any]  # what `this_process` gives


class Failure(NamedTuple):
    """The first process that failed, and how."""

    rank: int
    problem: str
    is_dead: bool = False  # without having said it


def this_process() -> Process:
    """What tells this process from all others, as JSON."""
    space = ""  # containers may share a name, and have a numbering of processes each
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    process = psutil.Process()
    return {
        "machine": f"{socket.gethostname()} {psutil.boot_time():.0f} {space}",
        "pid": process.pid,
        "created": process.create_time(),
    }


class Peers:
    """The processes of the step, by rank, as a daemon thread sees them.

    That thread works while the main thread is held inside of a collective operation, where no signal handler
    runs; then it ends the process. `failure` is what it has found.
    """

    def __init__(self, rank: int, processes: Sequence[Process], store: "Store") -> None:
        self.failure: Failure | None = None
        self._rank, self._store, self._processes = rank, store, processes
        machines = [process["machine"] for process in processes]
        self._near = [r for r, machine in enumerate(machines) if machine == machines[rank] and r != rank]
        self._speakers = [machines.index(machine) for machine in dict.fromkeys(machines)]  # one of each
        self._beats: dict[int, tuple[bytes, float]] = {}
        self._left = threading.Event()
        self._parent = os.getppid()

    def watch(self, label: str) -> None:
        """Start the thread. `label` is this process in messages."""
        threading.Thread(target=self._watch, args=(label,), name="peers", daemon=True).start()

    def is_near(self, rank: int) -> bool:
        """Whether that process is on this machine: what it says is seen where this one's words are."""
        return rank in self._near

    def look(self) -> bool:
        """See whether another process has failed. From any thread."""
        if self.failure is None:
            try:
                self.failure = self._read_failure() or self._find_dead() or self._find_lost()
            except RuntimeError:  # the store is gone, and its process with it
                self.failure = Failure(0, "its process is gone", is_dead=True) if self._rank else None
        return self.failure is not None

    def blame(self, rank: int, problem: str, *, is_dead: bool = False) -> None:
        """Say who has failed, unless somebody has before. Never raises."""
        with suppress(RuntimeError):
            self._store.compare_set(FAILED, "", json.dumps([rank, problem, is_dead]))
            self.failure = self._read_failure()

    def some_ended(self) -> bool:
        """Whether a process of this machine has ended, well or not. Asks no store: for signal handlers."""
        return any(not self._lives(rank) for rank in self._near)

    def leave(self) -> None:
        """Tell the others that this process ends in good order, and stop watching. Never raises."""
        self._left.set()
        with suppress(RuntimeError):
            self._store.set(_left(self._rank), "")

    def await_left(self, rank: int, longest_s: float) -> None:
        """Wait until that process has left or died. Never raises."""
        end = time.monotonic() + longest_s
        with suppress(RuntimeError):
            while time.monotonic() < end and not self._store.check([_left(rank)]):
                if rank in self._near and not self._lives(rank):
                    return
                time.sleep(0.02)

    def _watch(self, label: str) -> None:
        beat_at = 0.0
        while not self._left.wait(LOOK_S):
            if self._is_orphan():
                self._end(f"{label}: who started its processes is gone, so this one ends", at_once=True)
            if self._rank in self._speakers and time.monotonic() - beat_at > BEAT_S:
                beat_at = time.monotonic()
                with suppress(RuntimeError):
                    self._store.set(_beat(self._rank), str(beat_at))
            if self.look() and self.failure:
                is_told = self.failure.rank in self._near or self._rank != 0
                text = f"{label}: rank {self.failure.rank} failed: {self.failure.problem}"
                self._end("" if is_told else text)

    def _end(self, text: str, *, at_once: bool = False) -> None:
        """End this process, unless the main thread does so in good order."""
        if not at_once and self._left.wait(GRACE_S):
            return
        leave_nothing_partial()
        if text and (self._rank == 0) and LAUNCHER not in os.environ:
            say_last(f"\n{text}\n  -> run the same command again: it goes on from its last save\n")
        end_with("")
        real_exit(exit_code(BEREFT if self.failure and self.failure.is_dead else 1))

    def _is_orphan(self) -> bool:
        """Whether torchrun, or our own launcher, was killed."""
        watched = LAUNCHER in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
        return watched and os.getppid() != self._parent

    def _lives(self, rank: int) -> bool:
        process = self._processes[rank]
        try:
            found = psutil.Process(process["pid"])
            return found.create_time() == process["created"] and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def _read_failure(self) -> Failure | None:
        if not self._store.check([FAILED]):
            return None
        failure = Failure(*json.loads(self._store.get(FAILED)))
        return None if failure.rank == self._rank else failure

    def _find_dead(self) -> Failure | None:
        for rank in self._near:
            if not self._lives(rank) and not self._store.check([_left(rank)]):
                self.blame(rank, "its process was killed, or ended by native code", is_dead=True)
                return self.failure
        return None

    def _find_lost(self) -> Failure | None:
        now = time.monotonic()
        for rank in self._speakers:
            if self.is_near(rank) or rank == self._rank or not self._store.check([_beat(rank)]):
                continue
            beat = self._store.get(_beat(rank))
            before, since = self._beats.setdefault(rank, (beat, now))
            if beat != before:
                self._beats[rank] = (beat, now)
            elif now - since > LOST_S and not self._store.check([_left(rank)]):
                self.blame(rank, f"its machine has given no sign of life for {LOST_S:.0f} s", is_dead=True)
                return self.failure
        return None


def _left(rank: int) -> str:
    return f"chainforge/left/{rank}"


def _beat(rank: int) -> str:
    return f"chainforge/beat/{rank}"
