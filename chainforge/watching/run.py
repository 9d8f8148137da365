"""A run at one moment: which steps are done, which one is running, and what that one shows of itself."""

import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from chainforge.run.live import COMPLETIONS, PROGRESS
from chainforge.watching.curves import Curve, curves
from chainforge.watching.pace import Pace, read_pace
from chainforge.watching.read import Reader, Table, number_of

OWNER = re.compile(r"PID (\d+) on (.+)")
SILENT_S = 120  # of a step on another machine: after so long without a sign, it counts as stopped
DONE, RUNNING, STOPPED, WAITING = "done", "running", "stopped", "waiting"
SIGNS = {DONE: "✓", RUNNING: "▶", STOPPED: "■", WAITING: "·"}


@dataclass(frozen=True, slots=True)
class StepSeen:
    """One step. When it last wrote something and when it began, in seconds since 1970; 0 for never."""

    name: str
    state: str
    seen_at: float = 0.0
    wall_s: float | None = None
    score: float | None = None
    """pass@1 of an evaluation."""
    began_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Focus:
    """The step that is looked at. `table` and `groups` are what it wrote, as it wrote them."""

    step: StepSeen
    pace: Pace | None
    table: Table = field(default_factory=dict)
    groups: Sequence[Mapping[str, Any]] = ()

    @property
    def curves(self) -> list[Curve]:
        """Of the table."""
        return curves(self.table)


@dataclass(frozen=True, slots=True)
class Run:
    """What a frame shows."""

    logs: Path
    now: float
    steps: Sequence[StepSeen]
    focus: Focus | None

    def count(self, state: str) -> int:
        """How many steps are in it."""
        return sum(step.state == state for step in self.steps)


def look(logs: Path, names: Sequence[str], reader: Reader, now: float, step: str | None = None) -> Run:
    """The run in that folder. `names` has the steps of its graph in their order; files tell of others.

    `step` is the one to look at, else the one that runs, or was the last to write.
    """
    known = list(names)
    known += sorted(set(found_steps(logs)) - set(known))
    steps = [_see(logs, name, reader, now) for name in known]
    chosen = [seen for seen in steps if seen.name == step] if step else _most_recent(steps)
    return Run(logs, now, steps, _focus(logs, chosen[0], reader) if chosen else None)


def found_steps(logs: Path) -> Iterator[str]:
    """The steps that have left a file there."""
    for ending in (".csv", PROGRESS, ".lock.owner"):
        folder = logs / "locks" if ending == ".lock.owner" else logs
        for path in _files(folder, f"*{ending}"):
            name = path.relative_to(folder).as_posix().removesuffix(ending)
            if not name.startswith(("locks/", "trackers/")):
                yield name.replace("/", "@", 1)


def _files(folder: Path, pattern: str) -> Iterable[Path]:
    try:
        return [*folder.glob(pattern), *folder.glob(f"*/{pattern}")]
    except OSError:  # a folder that is being removed
        return []


def _see(logs: Path, name: str, reader: Reader, now: float) -> StepSeen:
    base = name.replace("@", "/")
    plots, metrics = logs.parent / "plots", logs.parent / "metrics"
    record = logs / f"{base}.json"
    owner = logs / "locks" / f"{name}.lock.owner"
    ended_at, began_at = _changed(record), _changed(owner)
    signs = (f"{base}{ending}" for ending in (".csv", PROGRESS, COMPLETIONS))
    seen_at = max(ended_at, began_at, *(_changed(logs / sign) for sign in signs))
    said = reader.object(record) or {}
    score = None
    if name.startswith("evaluate"):
        checkpoint, _, bench = name.partition("@")[2].rpartition("-")
        score = number_of(
            (reader.object(metrics / "eval" / checkpoint / f"{bench}.json") or {}).get("pass_at_1")
        )
    if began_at > ended_at:
        state = RUNNING if _is_alive(owner, began_at, seen_at, now) else STOPPED
    elif ended_at:
        state = DONE
    elif seen_at:  # a copy without locks/
        state = RUNNING if now - seen_at < SILENT_S else STOPPED
    elif score is not None or (metrics / f"{base}.json").is_file() or (plots / f"{base}.csv").is_file():
        state = DONE  # it came from DVC's cache, or logs/ was removed
    else:
        state = WAITING
    wall_s = number_of(said.get("wall_s")) if state == DONE else None
    return StepSeen(name, state, seen_at, wall_s, score, began_at)


def _is_alive(owner: Path, began_at: float, seen_at: float, now: float) -> bool:
    """Whether the process that began the step still runs; elsewhere, whether it gave a sign lately."""
    try:
        found = OWNER.search(owner.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not found or found[2].strip() != socket.gethostname():
        return now - seen_at < SILENT_S
    try:
        process = psutil.Process(int(found[1]))
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= began_at + 1
    except (psutil.Error, OSError, OverflowError):
        return False


def _most_recent(steps: Sequence[StepSeen]) -> list[StepSeen]:
    """Those that run first, then the one that wrote last; none that has written nothing.

    Of several that run, an evaluation comes last, and of the others the one that began last comes first: it
    stays the same one until a step ends.
    """

    def order(step: StepSeen) -> tuple[bool, bool, float]:
        runs = step.state == RUNNING
        return runs, not (runs and step.name.startswith("evaluate")), (runs and step.began_at) or step.seen_at

    return sorted((step for step in steps if step.seen_at), key=order, reverse=True)


def _focus(logs: Path, step: StepSeen, reader: Reader) -> Focus:
    base = step.name.replace("@", "/")
    table = reader.table(logs / f"{base}.csv") or reader.table(logs.parent / "plots" / f"{base}.csv")
    pace = read_pace(reader.object(logs / f"{base}{PROGRESS}"))
    return Focus(step, pace, table or {}, reader.rows(logs / f"{base}{COMPLETIONS}"))


def _changed(path: Path) -> float:
    """When, in seconds since 1970; 0 where there is no such file."""
    try:
        return os.stat(path).st_mtime
    except (OSError, ValueError):
        return 0.0
