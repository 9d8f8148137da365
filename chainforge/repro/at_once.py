"""Several steps at once: each is reproduced by DVC in a process of its own. On Linux.

The first of them has the terminal. What another says is shown when it ends, or when it is the only one left.
DVC's own locks see to it that no two write dvc.lock at the same time, and they are free while a step works.
"""

import ctypes
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

import click

from chainforge.project.recorded import read_recorded
from chainforge.repro.plan import by_urgency, read_plan
from chainforge.repro.recorded import order_recorded

if TYPE_CHECKING:
    from dvc.stage import Stage

DVC_LOG = logging.getLogger("dvc")  # says what was raised as `dvc` says it
LOOK_S = 0.1
PR_SET_PDEATHSIG = 1


@dataclass
class Running:
    """A step under way. `said` is what it has said, unless it has the terminal; so much of that was shown."""

    step: str
    pid: int
    said: IO[bytes] | None
    shown: int = 0


@dataclass
class Steps:
    """Where each step of a plan stands."""

    waiting: dict[str, set[str]]  # by urgency; what each still waits for
    running: list[Running] = field(default_factory=list)
    code: int = 0  # of the first that failed

    def next(self) -> str | None:
        """A step that can start; none after one has failed."""
        ready = (step for step, left in self.waiting.items() if not left)
        return None if self.code else next(ready, None)

    def end(self, ended: Running, code: int) -> None:
        self.running.remove(ended)
        self.code = self.code or code
        for left in self.waiting.values():
            left.discard(ended.step)


def repro_at_once(targets: Sequence[str], jobs: int) -> int | None:
    """Do what `dvc repro TARGET ...` does, up to `jobs` steps at once, and return its exit code.

    After a step that failed no other starts; those under way go on to their end. None where DVC cannot read
    the graph, and no step but `lock` has run: `dvc repro` then says in its own words what is wrong.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # of DVC's bars: no thread may run while this process forks
    sys.argv = ["dvc", "repro", *targets]  # what DVC writes into its locks
    try:
        with Repo(_wait_for_lock=True) as repo:
            repo.scm_context.quiet = True
            try:
                plan, stages = read_plan(repo, targets)
            except (ValueError, TypeError, AttributeError):  # such as Python's own, of a value in a file
                return None
            if not plan:
                click.echo("Nothing has changed since the last run.")
                return 0
            before = list(read_recorded())
            code = run_all(Steps({step: set(plan[step]) for step in by_urgency(plan)}), stages, jobs)
            order_recorded(repo, [*before, *plan])
            return code
    except DvcException:
        DVC_LOG.exception("")
        return 255


def run_all(steps: Steps, stages: Mapping[str, "Stage"], jobs: int) -> int:
    """Start what can start and wait for what runs, until nothing is left or a step has failed."""
    while True:
        try:
            while len(steps.running) < jobs and (step := steps.next()):
                beside = any(not running.said for running in steps.running)
                steps.running.append(start(stages[step], beside=beside))
                del steps.waiting[step]
            if not steps.running:
                return steps.code
            look(steps)
            time.sleep(LOOK_S)
        except KeyboardInterrupt:  # the steps have heard it as well, and save their work
            steps.code = steps.code or 128 + signal.SIGINT


def look(steps: Steps) -> None:
    """Note which steps have ended, and show what they said."""
    for running in list(steps.running):
        pid, status = os.waitpid(running.pid, os.WNOHANG)
        if pid:
            show(running)
            steps.end(running, os.waitstatus_to_exitcode(status))
    if steps.running and all(running.said for running in steps.running):
        show(steps.running[0])


def start(stage: "Stage", *, beside: bool) -> Running:
    """Fork what runs a step. `beside` another that has the terminal."""
    said = tempfile.TemporaryFile() if beside else None  # noqa: SIM115  # closed with what it belongs to
    sys.stdout.flush()
    scheduler, pid = os.getpid(), os.fork()
    if pid:
        return Running(stage.addressing, pid, said)
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # as if it were the one process of dvc
        if os.getppid() == scheduler:
            if said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            code = repro_one(stage)
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(code)


def repro_one(stage: "Stage") -> int:
    """What `dvc repro --single-item` does, of a stage that is read already, and its exit code."""
    from dvc.exceptions import DvcException
    from dvc.repo import lock_repo
    from dvc.repo.reproduce import _reproduce

    try:
        with lock_repo(stage.repo), stage.repo.scm_context(quiet=True):
            _reproduce([stage])
    except DvcException:
        DVC_LOG.exception("")
        return 255
    except Exception:
        DVC_LOG.exception("unexpected error")
        return 255
    return 0


def show(running: Running) -> None:
    """What a step has said since it was shown last. The file's place is the step's: it stays where it is."""
    while running.said and (piece := os.pread(running.said.fileno(), 1 << 16, running.shown)):
        if not running.shown:
            click.echo()  # below a bar
        sys.stdout.buffer.write(piece)
        sys.stdout.flush()
        running.shown += len(piece)
