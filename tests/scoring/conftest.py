"""Rewards as plugin files, scored for real, and nothing left running afterwards."""

import os
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import SUPERCOT

from chainforge.plugins import load_plugins
from chainforge.scoring import Scorer
from chainforge.wiring import weighted

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


@pytest.fixture(scope="module")
def make_scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeScorer]:
    """`make(code, function, **options)`: a scorer of one plugin file. All are closed in the end."""
    scorers = []

    def make(
        code: str, function: str = "reward", *, log: Any = None, limit: float = 20.0, **options: Any
    ) -> Scorer:
        folder = tmp_path_factory.mktemp("plugins")
        write_plugin(folder, code, "toy", function, **options)
        plugins = load_plugins(folder)
        assert not plugins.broken
        reward = weighted(plugins.pick("rewards", "toy"))
        scorers.append(Scorer((reward,), SUPERCOT, limit, log or (lambda name, value: None)))
        return scorers[-1]

    yield make
    for scorer in scorers:
        scorer.close()


def until(true: Callable[[], Any], seconds: float = 10.0) -> None:
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
