"""The resume folder of a step under way: what is saved, and where it goes on after a kill.

It lies outside of DVC's outputs, in $CHAINFORGE_WORK or .work of the project (the original one under
`dvc exp run --temp` and in the queue), and is keyed by the fingerprint of the step's inputs.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from chainforge.config.run import RuntimeSettings
from chainforge.errors import ChainForgeError
from chainforge.original import original_root
from chainforge.outputs import write_json, write_text
from chainforge.run.exclusive import exclusive
from chainforge.run.fingerprint import Inputs, describe_change, differences
from chainforge.run.finished import FINISHED, INPUTS, discard, sweep
from chainforge.run.journal import Journal
from chainforge.run.live import Live
from chainforge.run.pace import Pace
from chainforge.run.progress import say
from chainforge.run.saves import PARTIAL, Saves, remove
from chainforge.run.step import live_of, reward_log
from chainforge.run.stopping import Stopped, Stopping
from chainforge.run.world import World, this_world

LOCKS = Path("logs/locks")


class Stateful(Protocol):
    """Part of a loop's state, in torch's own convention."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


class Work:
    """What a loop saves. Without a folder nothing is kept, and nothing goes on.

    Of several processes, the first one writes. All of them call `attach`, `journal` and `safe_point` equally
    often, in the same order.
    """

    def __init__(self, folder: Path | None = None, every_s: float = 0.0, world: World | None = None) -> None:
        self.folder = folder
        self.live = Live()
        self._every_s = every_s
        self._world = world or this_world()
        self._parts: Mapping[str, Stateful] = {}
        self._saved_at = time.monotonic()
        self._pace = Pace(every_s if self._world.size > 1 else 0.0)  # one process meets itself each time
        self.stopping = Stopping()

    def attach(self, **parts: Stateful) -> None:
        """Name the parts of the loop's state. Each is set to the newest save, if there is one."""
        self._parts = parts
        if not self.folder:
            return
        saves = Saves(self.folder, self._world)
        state = saves.newest(self._state if self._world.size > 1 else dict)
        unfit = None if state is None else _load(parts, state)
        said = self._world.share((saves.taken, unfit))
        if problem := next((unfit for _, unfit in said if unfit), None):
            raise self._unfit(problem)  # some parts are set by now: only a new process can start afresh
        if any(taken != saves.taken for taken, _ in said):
            raise ChainForgeError(
                f"not every process could read the same save in {self.folder}",
                "put the project on a disk that all of them share, then run the same command again",
            )
        if state is not None:
            say(f"going on from the state in {self.folder}")
            self._saved_at = time.monotonic()

    def _unfit(self, problem: str) -> ChainForgeError:
        assert self.folder is not None
        saves = Saves(self.folder)
        if self._world.is_first:
            saves.set_aside()
        return ChainForgeError(
            f"the saved state in {self.folder} does not fit this step: its {problem}",
            f"it is in {saves.aside} now; run the same command again: the step starts afresh",
        )

    def safe_point(self) -> None:
        """The state is consistent here: save it if it is time to, or if the step was asked to stop.

        Raises Stopped in the latter case. The first process has the clock; each may have been asked to stop.
        """
        if not self._pace.is_due():
            return
        is_time = time.monotonic() - self._saved_at >= self._every_s
        said = self._world.share((self.stopping.reason, is_time, self._pace.proposal()))
        reason = next((reason for reason, *_ in said if reason), None)
        _, is_time, count = said[0]
        self._pace.meet_after(count)
        if self.folder and self._parts and (reason or is_time):
            Saves(self.folder, self._world).write(self._state())
            self._saved_at = time.monotonic()
        if reason:
            kept = f"; its work is in {self.folder}" if self.folder else ""
            raise Stopped(f"stopped ({reason}){kept}", "run the same command again to go on from there")

    def _state(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def journal(self, name: str) -> Journal:
        """Rows that are kept one by one, by the first process."""
        journal = Journal(self.folder and self.folder / f"{name}.jsonl", writes=self._world.is_first)
        self._world.share(None)  # all of them have read it before there are new rows
        if journal.rows:
            say(f"going on after {len(journal.rows)} rows in {self.folder}/{name}.jsonl")
        return journal


def _load(parts: Mapping[str, Stateful], state: Mapping[str, Any]) -> str | None:
    """Set the parts to the state. Returns what does not fit."""
    for name, part in parts.items():
        try:
            part.load_state_dict(state[name])
        except Exception as error:  # whatever a part makes of a state that is not its own
            reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            return f"{name} ({reason:.300})"
    return None


@contextmanager
def open_work(inputs: Inputs, runtime: RuntimeSettings) -> Iterator[Work]:
    """Hold the step's resume folder. It is marked as finished when the block ends well, in every process.

    Raises ChainForgeError where another run of this step is under way here, or holds the folder.
    """
    world, folder = this_world(), work_root() / f"{inputs.step}-{inputs.fingerprint}"
    with ExitStack() as held:
        if len(set(world.share(inputs.fingerprint))) > 1:
            raise ChainForgeError(
                f"{inputs.step}: its processes do not have the same inputs",
                "run the same command again, and change no input while it starts",
            )
        world.once(_take, folder, inputs, held)
        work = Work(folder, runtime.save_every_s, world)
        work.live = live_of(inputs.step) if world.is_first else work.live
        with work.stopping.listening():
            yield work
        world.share(None)  # none of them has failed, or needs the folder
        world.once(_finish, folder)


def _take(folder: Path, inputs: Inputs, held: ExitStack) -> None:
    """Lock the folder and make it ready."""
    held.enter_context(exclusive(LOCKS / f"{inputs.step}.lock", inputs.step))
    sweep(folder.parent)  # before there is a lock in the folder: it may be this one that goes
    held.enter_context(exclusive(folder / "lock", inputs.step))
    (folder / FINISHED).unlink(missing_ok=True)
    for partial in folder.glob(f"*{PARTIAL}"):
        remove(partial)
    if not has_saves(folder):
        _tell_what_changed(inputs, folder)
        reward_log(inputs.step).unlink(missing_ok=True)
        live_of(inputs.step).clear()
    write_json(folder / INPUTS, asdict(inputs))


def _finish(folder: Path) -> None:
    if has_saves(folder):
        write_text(folder / FINISHED, "")  # kept until DVC has recorded the result
    else:
        discard(folder)


def work_root() -> Path:
    """Where the resume folders lie."""
    return original_root() / os.environ.get("CHAINFORGE_WORK", ".work")


def has_saves(folder: Path) -> bool:
    """Whether a step would go on from this folder."""
    return bool(Saves(folder).numbers()) or any(folder.glob("*.jsonl"))


def _tell_what_changed(inputs: Inputs, folder: Path) -> None:
    for other in sorted(folder.parent.glob(f"{inputs.step}-*/{INPUTS}")):
        if other.parent == folder or (other.parent / FINISHED).exists() or not has_saves(other.parent):
            continue
        try:
            before = json.loads(other.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # another process has just removed it; or it is broken
            continue
        changed = [describe_change(*change) for change in differences(before, asdict(inputs))]
        say(
            f"{inputs.step}: starting afresh. {other.parent} has an unfinished run with other inputs: "
            f"{', '.join(changed)}. It goes on if they come back; chainforge gc --unfinished removes it"
        )
