"""Toy rewards as plugin files, and a look at processes."""

import os
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chainforge.scoring import Scorer

MakeScorer = Callable[..., Scorer]
REGISTER = """
import chainforge as cf

@cf.hookimpl
def register_rewards(register):
    register({name!r}, {function}, **{options!r})
"""


def write_plugin(folder: Path, code: str, name: str, function: str, **options: Any) -> None:
    """A plugin file: the code as it is, and a hook below."""
    folder.mkdir(exist_ok=True)
    hook = REGISTER.format(name=name, function=function, options=options)
    (folder / f"reward_{name}.py").write_text(textwrap.dedent(code) + hook, encoding="utf-8")


def until(true: Callable[[], Any], seconds: float = 300.0) -> None:
    """Wait for what must become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()  # without /proc: there, as far as we can tell
