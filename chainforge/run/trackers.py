"""Each row of a step's table to trackers as well (runtime.trackers), through those of accelerate.

A tracker is a copy for people: what goes wrong with it is said once, and the step goes on without it.
"""

import json
import os
import random
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chainforge.errors import describe
from chainforge.original import original_root
from chainforge.outputs import write_text
from chainforge.providers.secrets import cross_out_keys
from chainforge.run.crash import LOGS
from chainforge.run.progress import say
from chainforge.run.world import VARIABLES

FOLDER = LOGS / "trackers"  # of the project, for queued experiments too
PROJECT = "chainforge"
MEMORY = "trackers.json"  # in the step's resume folder
# By these accelerate would find several processes, and set the threads of torch anew.
LAUNCHERS = (*VARIABLES, "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


class Trackers:
    """Where rows go. None of its methods raises because of a tracker."""

    def __init__(
        self, names: Sequence[str], step: str, config: Mapping[str, Any], folder: Path | None = None
    ) -> None:
        """`folder` is the step's resume folder: what was sent, and to which run, is kept there."""
        self._step, self._config = step, config
        self._memory = folder / MEMORY if folder else None
        before = _read(self._memory)
        self._run = before.get("run") or f"{step.replace('@', '-')}-{secrets.token_hex(4)}"
        self._sent: dict[str, int] = before.get("sent", {})
        self._ids: dict[str, str] = before.get("ids", {})
        self._waiting, self._open = list(names), dict[str, Any]()

    def add(self, number: int, row: Mapping[str, float]) -> None:
        """Send row `number`, unless an earlier process of this run has.

        That is remembered before it is sent: who is killed in between loses a row there, and doubles none.
        """
        while self._waiting:
            name = self._waiting.pop(0)
            with self._told(name):
                self._open[name] = self._begin(name, number)
        for name, tracker in list(self._open.items()):
            if number <= self._sent.get(name, 0) and name != "tensorboard":  # which has `purge_step`
                continue
            with self._told(name):
                self._sent[name] = number
                self._remember()
                tracker.log(dict(row), step=number)

    def finish(self) -> None:
        """The table is whole."""
        for name, tracker in list(self._open.items()):
            with self._told(name):
                tracker.finish()
        self._open = {}

    def _begin(self, name: str, number: int) -> Any:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        begin_accelerate()
        folder = original_root().resolve() / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        place, options = choices(name, folder, self._run, self._step, number, self._ids.get(name))
        if name == "trackio":
            options["config"] = dict(self._config)  # one that comes later it does not keep
        tracker = LOGGER_TYPE_TO_CLASS[name](*place, **options)
        tracker.start()
        if name == "mlflow":
            self._ids[name] = tracker.tracker.info.run_id
        if name not in self._sent:
            tracker.store_init_configuration(dict(self._config))
        return tracker

    def _remember(self) -> None:
        if self._memory:
            known = {"run": self._run, "sent": self._sent, "ids": self._ids}
            write_text(self._memory, json.dumps(known) + "\n")

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Say what goes wrong inside, and leave that tracker out from then on. Python's generator stays."""
        state = random.getstate()
        try:
            yield
        except (Exception, SystemExit) as error:
            self._open.pop(name, None)
            why = cross_out_keys(describe(error))
            say(f"{self._step}: the tracker {name} failed ({why:.300}); the step goes on without it")
        finally:
            random.setstate(state)


def choices(
    name: str, folder: Path, run: str, step: str, number: int, known: str | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What accelerate's class of that name is made with.

    What it writes lies in `folder`, unless its own variables say otherwise. `known` is its own name of the
    run, where an earlier process began it.
    """
    if name == "tensorboard":
        return (run, folder / name), {"purge_step": number}
    if name == "wandb":
        import wandb

        # what it would take from the process on its own: output, code, the address of the repository
        quiet = wandb.Settings(console="off", disable_git=True, disable_code=True, save_code=False)
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        given = {"name": step, "id": run, "resume": "allow", "dir": folder, "settings": quiet}
        return (project,), given
    if name == "mlflow":
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        return (PROJECT, (folder / "mlflow").as_uri()), {"run_id": known, "run_name": run}
    return (PROJECT,), {"name": run, "resume": "allow", "auto_log_cpu": False, "auto_log_gpu": False}


def begin_accelerate() -> None:
    """Its trackers ask it which process this is, and only the first one has trackers: there is one for it."""
    from accelerate.state import PartialState

    hidden = {name: os.environ.pop(name) for name in LAUNCHERS if name in os.environ}
    try:
        PartialState(cpu=True)
    finally:
        os.environ.update(hidden)


def _read(path: Path | None) -> dict[str, Any]:
    """What an earlier process remembered; nothing where that cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path else {}
        return (
            {"run": str(found["run"]), "sent": dict(found["sent"]), "ids": dict(found["ids"])}
            if found
            else {}
        )
    except (OSError, ValueError, TypeError, KeyError):
        return {}
