"""A side of a benchmark: a worker process that takes its turns."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass
class Contestant:
    """A worker process, and what it reported."""

    label: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str]

    def __enter__(self) -> "Contestant":
        self.rows: list[dict[str, Any]] = []
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | self.environment,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()

    def turn(self) -> dict[str, Any]:
        """One step."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.label} stopped; the end of {self.log}:\n{self.log.read_text()[-2000:]}")
        return json.loads(line)

    def whole_turn(self) -> dict[str, Any]:
        """A rollout, with the CPU seconds and the memory of the worker and all processes below it."""
        first = psutil.Process(self.process.pid)
        family = [first, *first.children(recursive=True)]
        before = cpu_s(family)
        row = self.turn()
        row["cpu_s"]["rollout"] = round(cpu_s(family) - before, 4)
        row["peak_mb"] = sum(process.memory_info().rss for process in family) // 2**20
        return row


def cpu_s(family: Iterable[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in family)
