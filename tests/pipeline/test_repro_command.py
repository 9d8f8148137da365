"""`chainforge repro` is `dvc repro`: the same bytes, the same ways to stop it, and nothing stays behind.

tests/run/test_warm_start.py has what a step sees and hears.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from clone import Clone, copy_clone, make_clone
from interrupting import kill, owner, said, start, under_way, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="on Linux only")]

STEP = "sft_cold_start"
OUTPUTS = ("checkpoints", "metrics")


@pytest.fixture(scope="module")
def next_trains(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The next step is one that trains for some seconds."""
    clone = make_clone(tmp_path_factory.mktemp("next_trains") / "clone")
    clone.put(f"{STEP}.num_epochs", 40.0)
    clone.put("runtime.save_every_s", 0)
    clone.commit("longer")
    clone.run("dvc", "repro", "filter_cot")
    return clone


class Begun:
    """`chainforge repro`, in the middle of training."""

    def __init__(self, clone: Clone, temporary: Path) -> None:
        self.clone, self.temporary = clone, temporary
        self.process = start(clone, "chainforge", "repro", STEP, TMPDIR=str(temporary))
        wait_for(under_way(clone, STEP), self.process)
        self.all = psutil.Process(self.process.pid).children(recursive=True)
        step = psutil.Process(owner(clone.folder / f"logs/locks/{STEP}.lock"))
        assert any("warm_server.py" in word for word in step.cmdline()), "it was not forked"

    def end(self) -> None:
        """Neither processes nor files are left."""
        self.process.wait(60)
        gone = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)  # where nobody adopts orphans
        alive = lambda: [p for p in self.all if p.is_running() and p.status() not in gone]  # noqa: E731
        wait_for(lambda: not alive())
        wait_for(lambda: not list(self.temporary.glob("chainforge-*")))


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "t"
    folder.mkdir()
    return folder


@pytest.fixture
def begin(next_trains: Clone, tmp_path: Path, temporary: Path) -> Iterator[list[Begun]]:
    """Fill it; what is in there is ended afterwards."""
    running: list[Begun] = []
    yield running
    for begun in running:
        kill(begun.process)


def ends(clone: Clone, *command: str) -> subprocess.Popen[str]:
    process = start(clone, *command)
    process.wait()
    return process


@pytest.mark.long
def test_ctrl_c_saves_and_it_ends_in_the_bytes_of_dvc_repro(
    next_trains: Clone, tmp_path: Path, temporary: Path, begin: list[Begun]
) -> None:
    usual = copy_clone(next_trains, tmp_path / "usual")
    assert ends(usual, "dvc", "repro", STEP).returncode == 0
    begun = Begun(copy_clone(next_trains, tmp_path / "warm"), temporary)
    begin.append(begun)
    os.killpg(begun.process.pid, signal.SIGINT)
    begun.end()
    assert begun.process.returncode not in (0, None)
    assert said(begun.clone).count("stopping as soon as the work is saved") == 1
    assert f"{STEP}: stopped (Ctrl-C); its work is in " in said(begun.clone)
    assert ends(begun.clone, "chainforge", "repro", STEP).returncode == 0
    assert "going on" in said(begun.clone)
    assert begun.clone.sha256(*OUTPUTS) == usual.sha256(*OUTPUTS)
    assert (begun.clone.folder / "dvc.lock").read_bytes() == (usual.folder / "dvc.lock").read_bytes()
    left, usually_left = (c.run("git", "status", "--short") for c in (begun.clone, usual))
    assert left == usually_left


@pytest.mark.long
def test_two_processes_are_started_and_end_when_dvc_is_killed(
    next_trains: Clone, tmp_path: Path, temporary: Path, begin: list[Begun]
) -> None:
    clone = copy_clone(next_trains, tmp_path / "two")
    clone.put("runtime.processes", 2)
    begun = Begun(clone, temporary)
    begin.append(begun)
    begun.process.kill()  # chainforge repro has become dvc
    begun.end()
    assert "stopped (SIGTERM); its work is in " in said(clone)
    assert ends(clone, "chainforge", "repro", STEP).returncode == 0
    assert json.loads((clone.folder / f"logs/{STEP}.json").read_text())["processes"] == 2


def test_arguments_and_exit_code_are_those_of_dvc_repro(next_trains: Clone) -> None:
    dry = (next_trains.run(command, "repro", "--dry", STEP) for command in ("chainforge", "dvc"))
    warm, usual = (sorted(said.splitlines()) for said in dry)  # what does not depend on each other: any order
    assert warm == usual
    assert ends(next_trains, "chainforge", "repro", "no_step").returncode == 255
    told = " ".join(next_trains.run("chainforge", "repro", "--help").split())
    assert "Plain `dvc repro` makes the same bytes" in told
