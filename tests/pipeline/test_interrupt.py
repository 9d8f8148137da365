"""Interrupted at any moment, by whatever: nothing is lost; the run ends in the bytes of an undisturbed one.

The step here is one that imports no torch. test_kill.py does the same to training.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clone import Clone, copy_clone, make_clone, ran
from interrupting import (
    SLOW_TEACHER,
    kill,
    owner,
    recorded,
    said,
    start,
    under_way,
    wait_for,
    wait_for_end,
)
from small_disk import small_disk

pytestmark = pytest.mark.slow

STEP = "collect_cot"
TRACES = "data/cot/traces.jsonl"
EXPERIMENT = ("dvc", "exp", "run", "-S", "collect.samples=4", STEP)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The step has run; with more samples it takes some seconds, most of them asleep."""
    clone = make_clone(tmp_path_factory.mktemp("undisturbed"))
    (clone.folder / "plugins/teacher_slow.py").write_text(SLOW_TEACHER)
    clone.put(f"{STEP}.teacher", "slow")
    clone.put("runtime.save_every_s", 0)
    clone.commit("slow")
    clone.run("dvc", "repro", STEP)
    return clone


@pytest.fixture
def begun(undisturbed: Clone, tmp_path: Path) -> Clone:
    """The step is the next to run."""
    clone = copy_clone(undisturbed, tmp_path / "begun")
    clone.put("collect.samples", 4)
    return clone


@pytest.fixture(scope="module")
def whole(undisturbed: Clone, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, str]]:
    """What DVC records of an experiment that nothing disturbs, and what that makes."""
    clone = copy_clone(undisturbed, tmp_path_factory.mktemp("whole") / "clone")
    clone.run(*EXPERIMENT, "--name", "whole")
    return recorded(clone, "whole", STEP), clone.sha256("data")


def test_a_kill_ends_in_the_same_bytes(begun: Clone, whole: tuple[Any, dict[str, str]]) -> None:
    for _ in range(2):
        process = start(begun, "dvc", "repro", STEP)
        wait_for(under_way(begun, STEP), process)
        kill(process)
        assert not (begun.folder / TRACES).exists()
    assert "going on after" in begun.run("dvc", "repro", STEP)
    assert begun.sha256("data") == whole[1]
    assert list(begun.folder.rglob("*.partial")) == []


# dash stays between dvc and the step, bash does not
@pytest.mark.long
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_sigterm_to_dvc_alone_saves_and_stops_what_it_had_started(begun: Clone, shell: str) -> None:
    process = start(begun, "dvc", "repro", STEP, SHELL=shell)
    wait_for(under_way(begun, STEP), process)
    child = owner(begun.folder / f"logs/locks/{STEP}.lock")
    process.terminate()
    process.wait()
    wait_for_end(child)
    assert "stopped (dvc is gone); its work is in" in said(begun)
    again = begun.run("dvc", "repro", STEP)
    assert "going on after" in again
    assert ran(again) == ["lock", STEP]


def test_ctrl_c_saves_and_stops(begun: Clone) -> None:
    process = start(begun, "dvc", "repro", STEP)
    wait_for(under_way(begun, STEP), process)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=600)
    assert "stopped (Ctrl-C); its work is in" in said(begun)
    assert "Traceback" not in said(begun)
    assert "going on after" in begun.run("dvc", "repro", STEP)


@pytest.mark.long
def test_a_second_run_is_told_who_is_first(begun: Clone) -> None:
    begun.put("collect.samples", 8)
    process = start(begun, "dvc", "repro", STEP)
    wait_for(under_way(begun, STEP), process)
    os.killpg(process.pid, signal.SIGSTOP)  # else it might end before the others begin
    by_dvc = begun.run("dvc", "repro", STEP, fails=True)
    assert "is busy" in by_dvc or "is already running: PID" in by_dvc
    by_hand = begun.run("python", "-m", "stages.collect", STEP, fails=True)
    assert f"{STEP} is already running: PID" in by_hand
    os.killpg(process.pid, signal.SIGCONT)
    assert process.wait(timeout=600) == 0, said(begun)
    assert begun.repro(STEP) == ["lock"]


@pytest.mark.long
def test_a_setting_edited_while_its_step_runs_is_not_recorded_as_what_made_the_result(begun: Clone) -> None:
    process = start(begun, "dvc", "repro", STEP)
    wait_for(under_way(begun, STEP), process)
    begun.put(f"{STEP}.max_prompts", 50)
    assert process.wait(timeout=600) != 0
    assert f"while it ran, its inputs changed: {STEP}.max_prompts None -> 50" in said(begun)
    begun.put(f"{STEP}.max_prompts", None)
    again = begun.run("dvc", "repro", STEP)
    assert "going on after" in again
    begun.put(f"{STEP}.max_prompts", 50)
    assert begun.repro(STEP) == ["lock", STEP]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for a part of the answers."""
    with small_disk(tmp_path / "disk", "24k") as disk:
        yield disk


def test_a_full_disk_is_said_and_nothing_is_lost(
    begun: Clone, disk: Path, whole: tuple[Any, dict[str, str]]
) -> None:
    process = start(begun, "dvc", "repro", STEP, CHAINFORGE_WORK=str(disk))
    assert process.wait(timeout=600) != 0
    assert "the disk is full" in said(begun)
    assert "Traceback" not in said(begun)
    subprocess.run(("mount", "-o", "remount,size=20m", str(disk)), check=True)
    process = start(begun, "dvc", "repro", STEP, CHAINFORGE_WORK=str(disk))
    assert process.wait(timeout=600) == 0, said(begun)
    assert "going on after" in said(begun)
    assert begun.sha256("data") == whole[1]


@pytest.mark.long
def test_a_killed_experiment_in_a_temporary_folder_goes_on_to_the_same_bytes(
    begun: Clone, whole: tuple[Any, dict[str, str]]
) -> None:
    process = start(begun, *EXPERIMENT, "--temp")
    wait_for(under_way(begun, STEP), process)
    kill(process)
    assert (begun.folder / ".work").is_dir(), "in the original project, not in the temporary one"
    again = begun.run(*EXPERIMENT, "--temp", "--name", "again")
    assert "going on after" in again
    assert recorded(begun, "again", STEP) == whole[0]


@pytest.fixture
def queue(begun: Clone) -> Iterator[Clone]:
    """A clone of which no worker outlives the test."""
    yield begun
    begun.run("dvc", "queue", "stop", "--kill")


@pytest.mark.long
def test_an_experiment_whose_queue_worker_is_killed_goes_on_to_the_same_bytes(
    queue: Clone, whole: tuple[Any, dict[str, str]]
) -> None:
    queue.run(*EXPERIMENT, "--queue", "--name", "killed")
    start(queue, "dvc", "queue", "start", "-j", "1").wait()
    wait_for(under_way(queue, STEP))
    folders = (queue.folder / ".work").glob(f"{STEP}-*")
    (folder,) = (folder for folder in folders if not (folder / "finished").exists())
    worker = os.getpgid(owner(folder / "lock"))
    assert worker != os.getpgid(0)
    os.killpg(worker, signal.SIGKILL)
    assert re.search("killed .* Running", queue.run("dvc", "queue", "status")), "as DVC believes for ever"
    queue.run("dvc", "queue", "kill", "killed")
    queue.run(*EXPERIMENT, "--queue", "--name", "again")
    start(queue, "dvc", "queue", "start", "-j", "1").wait()
    wait_for(lambda: re.search("again .* (Success|Failed)", queue.run("dvc", "queue", "status")), every_s=1.0)
    assert "going on after" in queue.run("dvc", "queue", "logs", "again")
    assert recorded(queue, "again", STEP) == whole[0]
