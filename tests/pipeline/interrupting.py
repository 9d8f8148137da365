"""Start a step, wait until it has something to lose, and end it."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from clone import Clone, environment
from ruamel.yaml import YAML

from chainforge.run.work import has_saves

SLOW_TEACHER = '''"""Teacher `slow`: the procedural one, at the pace of an API."""
import time
import chainforge as cf

class Slow:
    def generate(self, prompts, *, n, seed):
        for prompt in prompts:
            for number in range(n):
                time.sleep(0.02)
                yield cf.Trace(prompt.id, f"{seed} {number}", prompt.answer or "", "stop", "slow")

@cf.hookimpl
def register_teachers(register):
    register("slow", Slow)
'''


def recorded(clone: Clone, name: str, step: str) -> Any:
    """Digests of all that a step of an experiment read and wrote."""
    refs = clone.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    (ref,) = [ref for ref in refs if ref.endswith(f"/{name}")]
    return YAML(typ="safe").load(clone.run("git", "show", f"{ref}:dvc.lock"))["stages"][step]


def start(clone: Clone, *command: str, **more: str) -> subprocess.Popen[str]:
    """The command in a session of its own, its output in logs/said."""
    (clone.folder / "logs").mkdir(exist_ok=True)
    with (clone.folder / "logs/said").open("w") as said:
        return subprocess.Popen(
            command,
            cwd=clone.folder,
            env=environment() | more,
            start_new_session=True,
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
        )


def kill(process: subprocess.Popen[str]) -> None:
    """Everything that was started, at once."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(
    true: Callable[[], object], process: subprocess.Popen[str] | None = None, every_s: float = 0.02
) -> None:
    """Until it is true, or the process has ended, or ten minutes have passed: the machine may be busy."""
    deadline = time.monotonic() + 600
    while not true() and (process is None or process.poll() is None) and time.monotonic() < deadline:
        time.sleep(every_s)


def wait_for_end(process: int) -> None:
    """Until a process that is not a child of this one has ended."""
    folder = Path(f"/proc/{process}")
    wait_for(lambda: not folder.exists(), every_s=0.1)
    assert not folder.exists(), "it goes on"


def under_way(clone: Clone, step: str) -> Callable[[], bool]:
    """Whether a step that has not finished has saved something."""

    def check() -> bool:
        folders = (clone.folder / ".work").glob(f"{step}-*")
        return any(has_saves(folder) and not (folder / "finished").exists() for folder in folders)

    return check


def owner(lock: Path) -> int:
    """The process that holds a lock."""
    return int(re.findall(r"\d+", lock.with_name(f"{lock.name}.owner").read_text())[0])


def said(clone: Clone) -> str:
    return (clone.folder / "logs/said").read_text()
