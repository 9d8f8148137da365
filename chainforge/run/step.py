"""One run of one step: errors told plainly, its seed, its files, and an untracked record of the run."""

import errno
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import psutil

from chainforge.config.loading import load_settings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.errors import ChainForgeError
from chainforge.outputs import write_json, write_text
from chainforge.response import TagFormat, tag_format
from chainforge.run.metrics import StepTable
from chainforge.run.seeds import derive

LOGS = Path("logs")


@dataclass(frozen=True)
class Step:
    """What a loop needs to know of the run it is part of."""

    name: str
    settings: RunSettings
    runtime: RuntimeSettings

    @property
    def response_format(self) -> TagFormat:
        """Which tags surround reasoning and summary."""
        return tag_format(self.settings.response_format)

    def seed(self, *parts: str | int) -> int:
        """A seed for one purpose within this step."""
        return derive(self.settings.seed, self.name, *parts)

    def table(self, columns: Sequence[str]) -> StepTable:
        """A row per optimizer step, live in logs/."""
        return StepTable(LOGS / f"{self.file_name}.csv", columns)

    def log(self, name: str, value: Any) -> None:
        """Append what a reward wants to be seen to its log."""
        path = reward_log(self.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, "value": value}, default=str) + "\n")

    def finish(self, summary: Mapping[str, float | None], table: StepTable | None = None) -> None:
        """Write what DVC reads, the summary last: plots/STEP.csv and metrics/STEP.json (unknown is null)."""
        if table:
            table.publish(Path("plots") / f"{self.file_name}.csv")
        known = {name: value if value is None or isfinite(value) else None for name, value in summary.items()}
        write_json(Path("metrics") / f"{self.file_name}.json", known)

    @property
    def file_name(self) -> str:
        """The step's name as a file name: distill@student -> distill/student."""
        return file_name(self.name)


def file_name(step: str) -> str:
    """distill@student -> distill/student."""
    return step.replace("@", "/")


def reward_log(step: str) -> Path:
    """Where a step's rewards log to. Nothing reads it; it is removed where the step starts afresh."""
    return LOGS / f"{file_name(step)}.rewards.jsonl"


def open_step(name: str) -> Step:
    """The step of that name with the settings that every step shares."""
    return Step(name, load_settings(RunSettings, "run"), load_settings(RuntimeSettings, "runtime"))


def stage_main(main: Callable[[str], None]) -> None:
    """Run `main(step)` for `python -m stages.VERB STEP`: problems in two lines and exit code 1."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: python -m {main.__module__} STEP   (dvc.yaml names the steps)")
    name = sys.argv[1]
    try:
        main(name)
    except ChainForgeError as error:
        sys.stderr.write(f"\n{name}: {error}{_reminder()}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        sys.exit(f"\n{name}: {_explain(error)}{_reminder()}")
    except KeyboardInterrupt:
        sys.exit(f"\n{name}: stopped at once; run the same command again: it goes on from its last save")
    record = {
        "step": name,
        "wall_s": round(time.time() - psutil.Process().create_time(), 2),  # imports are most of a short step
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "cpus": os.cpu_count(),
    }
    write_text(LOGS / f"{file_name(name)}.json", json.dumps(record) + "\n")


def _reminder() -> str:
    """DVC removes a step's outputs before it runs; who had some wants to know that they are not lost."""
    had_outputs = Path("dvc.lock").is_file()
    return "\n  -> nothing is half written; dvc checkout brings earlier outputs back" if had_outputs else ""


def _explain(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC or "No space left" in str(error):  # safetensors gives no number
        return f"the disk is full{where}\n  -> free some space (chainforge gc, old logs/), then run again"
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"cannot write{where}: {error.strerror}\n  -> make the project folder writable for this user"
    return f"{error.strerror or error}{where}\n  -> check that path, then run again"
