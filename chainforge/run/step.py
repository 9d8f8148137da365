"""What a loop needs to know of the step it is part of: its settings, its seed, its files."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel

from chainforge.config.loading import load_settings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.outputs import whole_folder, write_json, write_text
from chainforge.response import TagFormat, tag_format
from chainforge.run.crash import LOGS as LOGS
from chainforge.run.live import Live
from chainforge.run.metrics import StepTable
from chainforge.run.progress import say
from chainforge.run.seeds import derive
from chainforge.run.tracked_settings import tracked_settings
from chainforge.run.trackers import Trackers
from chainforge.run.world import World, this_world


@dataclass(frozen=True)
class Step:
    """What a loop needs to know of the run it is part of."""

    name: str
    settings: RunSettings
    runtime: RuntimeSettings
    world: World = field(default_factory=this_world)

    @property
    def response_format(self) -> TagFormat:
        """Which tags surround reasoning and summary."""
        return tag_format(self.settings.response_format)

    def seed(self, *parts: str | int) -> int:
        """A seed for one purpose within this step."""
        return derive(self.settings.seed, self.name, *parts)

    def table(
        self, columns: Sequence[str], settings: BaseModel | None = None, folder: Path | None = None
    ) -> StepTable:
        """A row per optimizer step, live in logs/. Only the first process keeps it.

        The trackers of `runtime.trackers` get each row, and `settings`; `folder` is the resume folder.
        """
        if not self.world.is_first:
            return StepTable(Path(os.devnull), columns)
        trackers = None
        if self.runtime.trackers and settings:
            config = tracked_settings(run=self.settings, settings=settings)
            trackers = Trackers(self.runtime.trackers, self.name, config, folder)
        return StepTable(LOGS / f"{self.file_name}.csv", columns, trackers)

    def log(self, name: str, value: Any) -> None:
        """Append what a reward of the first process wants to be seen to its log."""
        if not self.world.is_first:
            return
        path = reward_log(self.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, "value": value}, default=str) + "\n")

    def warn(self, about: str, text: str) -> None:
        """Say it on the terminal, and keep it in logs/STEP.ABOUT.txt."""
        say(text)
        if self.world.is_first:
            write_text(LOGS / f"{self.file_name}.{about}.txt", text + "\n")

    def finish(
        self,
        summary: Mapping[str, float | None],
        table: StepTable | None = None,
        **lists: list[dict[str, Any]],
    ) -> None:
        """Write what DVC reads, the summary last: plots/STEP.csv and metrics/STEP.json (unknown is null).

        `lists` go into the summary for the report; `dvc metrics` passes over what is no number.
        """
        known = {name: value if value is None or isfinite(value) else None for name, value in summary.items()}
        if table:
            self.world.once(table.publish, Path("plots") / f"{self.file_name}.csv")
        self.world.once(write_json, Path("metrics") / f"{self.file_name}.json", {**known, **lists})

    @contextmanager
    def output_folder(self, path: Path) -> Iterator[Path]:
        """`whole_folder` in the first process. The others get a folder that vanishes: all run the same."""
        with whole_folder(path) if self.world.is_first else TemporaryDirectory() as folder:
            yield Path(folder)

    @property
    def file_name(self) -> str:
        """The step's name as a file name: distill@student -> distill/student."""
        return file_name(self.name)


def file_name(step: str) -> str:
    """distill@student -> distill/student."""
    return step.replace("@", "/")


def live_of(step: str) -> Live:
    """What writes a step's files for `chainforge watch`."""
    return Live(LOGS / file_name(step))


def reward_log(step: str) -> Path:
    """Where a step's rewards log to. Nothing reads it; it is removed where the step starts afresh."""
    return LOGS / f"{file_name(step)}.rewards.jsonl"


def open_step(name: str) -> Step:
    """The step of that name with the settings that every step shares."""
    return Step(name, load_settings(RunSettings, "run"), load_settings(RuntimeSettings, "runtime"))
