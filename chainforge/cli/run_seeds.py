"""One experiment per seed, one after the other, each in a temporary copy of the project.

Not by DVC's queue: its worker lives on after Ctrl-C, and hides what a step says. `dvc exp run --temp` does
the same in the foreground, and records an experiment when all its steps have ended, or none.
"""

import hashlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from chainforge.config.loading import PARAMS
from chainforge.config.yaml import parse_mapping
from chainforge.errors import ChainForgeError
from chainforge.report.compare.settings import outdated_steps, value_of
from chainforge.report.seeds.runs import RATE, SEED, SeedRun, plain

# What a run depends on besides its settings; constraints.txt has the version of ChainForge that is installed.
CODE = ("chainforge", "constraints.txt", "plugins", "stages", "dvc.yaml")
LONGEST = 60  # characters of a name's part that tells the settings
ULP = 2.0**-22  # twins: this times 1, 2, 3, …; two steps of a float32 at most


@dataclass(frozen=True, slots=True)
class Planned:
    """A run to make: its name, the `-S` that lead to it, and the settings that they give."""

    name: str
    changes: tuple[str, ...]
    params: Mapping[str, Any]


def plan(seed: int, changes: Sequence[str], twins: int, nudge: str) -> Iterator[Planned]:
    """A seed, then its twins. Raises ChainForgeError where a change is not one of params.yaml."""
    mine = (*changes, f"{SEED}={seed}")
    params = changed_params(mine)
    yield Planned(f"{slug(changes)}-seed{seed}", mine, params)
    rate = value_of(params, nudge)
    if twins and (not isinstance(rate, float) or not nudge.endswith(f".{RATE}") or not rate):
        raise ChainForgeError(
            f"twins differ in the last digit of a learning rate, and {nudge} is {rate!r}",
            "name one that the first training step reads: --nudge grpo.learning_rate",
        )
    for twin in range(1, twins + 1):
        nudged = (*mine, f"{nudge}={rate * (1 + twin * ULP)!r}")
        yield Planned(f"{slug(changes)}-seed{seed}-twin{twin}", nudged, changed_params(nudged))


def changed_params(changes: Sequence[str]) -> dict[str, Any]:
    """What params.yaml says after `dvc exp run -S CHANGE …`."""
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides

    with TemporaryDirectory() as folder:
        path = Path(folder) / Path(PARAMS).name
        shutil.copy(PARAMS, path)
        try:
            apply_overrides(path, list(changes))
        except (DvcException, ValueError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise ChainForgeError(
                f"-S {' -S '.join(changes)}: {reason}", "one value each; docs/settings.md has the names"
            ) from error
        return parse_mapping(path.read_bytes(), str(PARAMS))


def slug(changes: Sequence[str]) -> str:
    """The settings as the beginning of a name that git takes."""
    text = re.sub(r"[.]{2,}", ".", re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(changes))).strip("-.")
    if len(text) > LONGEST:
        digest = hashlib.sha256("\n".join(changes).encode()).hexdigest()[:6]
        text = f"{text[: LONGEST - 7].rstrip('-.')}-{digest}"
    return text or "default"


def already(planned: Planned, runs: Sequence[SeedRun], targets: Sequence[str]) -> SeedRun | None:
    """The run of these settings and this code, if all its results, or those of the targets, are current."""
    wanted = plain(planned.params, "")
    return next(
        (r for r in runs if plain(r.params, "") == wanted and _has(r, targets) and _same_code(r)), None
    )


def _has(run: SeedRun, targets: Sequence[str]) -> bool:
    recorded = run.revision.recorded
    steps = set(recorded.get("stages") or {})
    old = outdated_steps(recorded, run.params, run.revision.lock)
    return not old & set(targets or steps) and set(targets or ("report",)) <= steps


def _same_code(run: SeedRun) -> bool:
    paths = [path for path in CODE if Path(path).exists()]
    return subprocess.run(["git", "diff", "--quiet", run.commit, "--", *paths]).returncode == 0


def free_name(name: str, taken: Sequence[str]) -> str:
    """The name, or with a number where another run has it."""
    number = 2
    free = name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free


def run_experiment(planned: Planned, name: str, targets: Sequence[str]) -> int:
    """The exit code of DVC; what it says goes to standard error. Ctrl-C and SIGTERM end it first."""
    flags = [flag for change in planned.changes for flag in ("-S", change)]
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "-n", name, *flags, *targets]
    with subprocess.Popen(command, stdout=sys.stderr.fileno()) as dvc, _passing_on(dvc):
        try:
            return dvc.wait()
        except KeyboardInterrupt:
            dvc.wait()  # it has had the signal too: its step saves, then its copy is deleted
            raise


@contextmanager
def _passing_on(dvc: "subprocess.Popen[bytes]") -> Iterator[None]:
    """While this lasts, SIGTERM is a Ctrl-C for both."""

    def interrupt(*_: object) -> None:
        with suppress(psutil.NoSuchProcess):
            ours = psutil.Process(dvc.pid)
            for process in (*ours.children(recursive=True), ours):  # dvc itself leaves it to its step
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGINT)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
