"""Killed in the middle of training, by whatever: the run ends in the bytes of an undisturbed one."""

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clone import Clone, copy_clone, make_clone, ran
from interrupting import SLOW_TEACHER, kill, owner, recorded, said, start, under_way, wait_for, wait_for_end
from small_disk import small_disk

pytestmark = [pytest.mark.slow, pytest.mark.long]

OUTPUTS = ("checkpoints", "data", "metrics", "plots", "reports", "logs/completions")
LONGER = {
    "collect_cot.teacher": "slow",
    "sft_cold_start.num_epochs": 40.0,
    "sft_refine.num_epochs": 10.0,
    "students.qwen_distilled_student.num_epochs": 30.0,
    "grpo.num_iterations": 2,
    "grpo.mini_batches": 2,
    "grpo.ref_sync_steps": 3,
    "grpo_reasoning.num_rl_steps": 16,
    "grpo_final.num_rl_steps": 16,
    "rejection_sampling.samples": 6,
    "distill_data.samples": 4,
    "evaluate.samples": 8,
    "runtime.rollout_rows": 4,
    "runtime.keep_completions": True,
    "checkpoints": ["qwen_rl_ckpt_final"],
    "report.parents": {},
}
EXPERIMENT = ("dvc", "exp", "run", "-S", "grpo_reasoning.num_rl_steps=60", "grpo_reasoning")
LONG_STEPS = (
    "collect_cot",
    "sft_cold_start",
    "grpo_reasoning",
    "rejection_sampling",
    "sft_refine",
    "grpo_final",
    "distill_data",
    "distill@qwen_distilled_student",
    "evaluate@qwen_rl_ckpt_final-reasoning",
    "evaluate@qwen_rl_ckpt_final-general",
)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A shortened pipeline in which every long step takes a few seconds; nothing has run."""
    clone = make_clone(tmp_path_factory.mktemp("longer"))
    (clone.folder / "plugins/teacher_slow.py").write_text(SLOW_TEACHER)
    for key, value in LONGER.items():
        clone.put(key, value)
    clone.take_out("students.qwen_student_cold_start")
    clone.commit("longer")
    return clone


@pytest.fixture(scope="module")
def undisturbed(fresh: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    clone = copy_clone(fresh, tmp_path_factory.mktemp("undisturbed") / "clone")
    clone.run("dvc", "repro")
    return clone


@pytest.fixture
def begun(undisturbed: Clone, tmp_path: Path) -> Clone:
    """The first RL step is the next to run."""
    clone = copy_clone(undisturbed, tmp_path / "begun")
    clone.put("runtime.save_every_s", 0)
    clone.put("grpo_reasoning.num_rl_steps", 120)
    return clone


@pytest.fixture(scope="module")
def experiment(undisturbed: Clone, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What DVC records of an experiment that nothing disturbs."""
    clone = copy_clone(undisturbed, tmp_path_factory.mktemp("experiment") / "clone")
    clone.run(*EXPERIMENT, "--name", "whole")
    return recorded(clone, "whole", "grpo_reasoning")


@pytest.mark.parametrize("save_every_s", [0, 0.2])  # wherever it can, and at intervals: steps take 1 to 2 s
def test_a_kill_in_each_of_ten_long_steps_ends_in_the_same_bytes(
    fresh: Clone, undisturbed: Clone, tmp_path: Path, save_every_s: float
) -> None:
    clone = copy_clone(fresh, tmp_path / "killed")
    clone.put("runtime.save_every_s", save_every_s)
    chance = random.Random(f"{save_every_s}")
    hit, went_on = [], 0
    for step in LONG_STEPS:
        process = start(clone, "dvc", "repro")
        wait_for(under_way(clone, step), process)
        time.sleep(chance.uniform(0, 0.5))
        hit += [step] if under_way(clone, step)() else []
        kill(process)
        went_on += "going on" in said(clone)
    went_on += "going on" in clone.run("dvc", "repro")
    assert clone.sha256(*OUTPUTS) == undisturbed.sha256(*OUTPUTS)
    assert went_on >= len(hit) >= len(LONG_STEPS) - 3, (went_on, hit)
    assert list(clone.folder.rglob("*.partial")) == []


@pytest.mark.parametrize(
    "shell", ["/bin/sh", "/bin/bash"]
)  # dash stays between dvc and the step, bash does not
def test_sigterm_to_dvc_alone_saves_and_stops_what_it_had_started(begun: Clone, shell: str) -> None:
    process = start(begun, "dvc", "repro", "grpo_reasoning", SHELL=shell)
    wait_for(under_way(begun, "grpo_reasoning"), process)
    child = owner(begun.folder / "logs/locks/grpo_reasoning.lock")
    process.terminate()
    process.wait()
    wait_for_end(child)
    assert "stopped (dvc is gone); its work is in" in said(begun)
    again = begun.run("dvc", "repro", "grpo_reasoning")
    assert "going on from the state" in again
    assert ran(again) == ["lock", "grpo_reasoning"]


def test_ctrl_c_saves_and_stops(begun: Clone) -> None:
    process = start(begun, "dvc", "repro", "grpo_reasoning")
    wait_for(under_way(begun, "grpo_reasoning"), process)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=600)
    assert "stopped (Ctrl-C); its work is in" in said(begun)
    assert "Traceback" not in said(begun)
    assert "going on from the state" in begun.run("dvc", "repro", "grpo_reasoning")


def test_a_second_run_is_told_who_is_first(begun: Clone) -> None:
    begun.put("grpo_reasoning.num_rl_steps", 300)
    process = start(begun, "dvc", "repro", "grpo_reasoning")
    wait_for(under_way(begun, "grpo_reasoning"), process)
    by_dvc = begun.run("dvc", "repro", "grpo_reasoning", fails=True)
    assert "is busy" in by_dvc or "is already running: PID" in by_dvc
    by_hand = begun.run("python", "-m", "stages.grpo", "grpo_reasoning", fails=True)
    assert "grpo_reasoning is already running: PID" in by_hand
    assert process.wait(timeout=600) == 0, said(begun)
    assert (begun.folder / "checkpoints/qwen_rl_ckpt_stage2/model.safetensors").exists()
    assert begun.repro("grpo_reasoning") == ["lock"]


def test_a_setting_edited_while_its_step_runs_is_not_recorded_as_what_made_the_result(begun: Clone) -> None:
    process = start(begun, "dvc", "repro", "grpo_reasoning")
    wait_for(under_way(begun, "grpo_reasoning"), process)
    begun.put("grpo.kl_coeff", 0.05)
    assert process.wait(timeout=600) != 0
    assert "while it ran, its inputs changed: grpo.kl_coeff 0.01 -> 0.05" in said(begun)
    begun.put("grpo.kl_coeff", 0.01)
    again = begun.run("dvc", "repro", "grpo_reasoning")
    assert "going on from the state" in again
    begun.put("grpo.kl_coeff", 0.05)
    assert begun.repro("grpo_reasoning") == ["lock", "grpo_reasoning"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for one saved state of the policy, not for two."""
    with small_disk(tmp_path / "disk", "150k") as disk:
        yield disk


def test_a_full_disk_is_said_and_nothing_is_lost(begun: Clone, disk: Path) -> None:
    process = start(begun, "dvc", "repro", "grpo_reasoning", CHAINFORGE_WORK=str(disk))
    assert process.wait(timeout=600) != 0
    assert "the disk is full" in said(begun)
    assert "Traceback" not in said(begun)
    subprocess.run(("mount", "-o", "remount,size=20m", str(disk)), check=True)
    process = start(begun, "dvc", "repro", "grpo_reasoning", CHAINFORGE_WORK=str(disk))
    assert process.wait(timeout=600) == 0, said(begun)
    assert "going on from the state" in said(begun)
    went_on = begun.sha256("checkpoints/qwen_rl_ckpt_stage2")
    assert "going on" not in begun.run("dvc", "repro", "--force", "--single-item", "grpo_reasoning")
    assert begun.sha256("checkpoints/qwen_rl_ckpt_stage2") == went_on


def test_a_killed_experiment_in_a_temporary_folder_goes_on_to_the_same_bytes(
    begun: Clone, experiment: Any
) -> None:
    process = start(begun, *EXPERIMENT, "--temp")
    wait_for(under_way(begun, "grpo_reasoning"), process)
    kill(process)
    assert (begun.folder / ".work").is_dir(), "in the original project, not in the temporary one"
    again = begun.run(*EXPERIMENT, "--temp", "--name", "again")
    assert "going on from the state" in again
    assert recorded(begun, "again", "grpo_reasoning") == experiment


@pytest.fixture
def queue(begun: Clone) -> Iterator[Clone]:
    """A clone of which no worker outlives the test."""
    yield begun
    begun.run("dvc", "queue", "stop", "--kill")


def test_an_experiment_whose_queue_worker_is_killed_goes_on_to_the_same_bytes(
    queue: Clone, experiment: Any
) -> None:
    queue.run(*EXPERIMENT, "--queue", "--name", "killed")
    start(queue, "dvc", "queue", "start", "-j", "1").wait()
    wait_for(under_way(queue, "grpo_reasoning"))
    (folder,) = (queue.folder / ".work").glob("grpo_reasoning-*")
    worker = os.getpgid(owner(folder / "lock"))
    assert worker != os.getpgid(0)
    os.killpg(worker, signal.SIGKILL)
    assert re.search("killed .* Running", queue.run("dvc", "queue", "status")), "as DVC believes for ever"
    queue.run("dvc", "queue", "kill", "killed")
    queue.run(*EXPERIMENT, "--queue", "--name", "again")
    start(queue, "dvc", "queue", "start", "-j", "1").wait()
    wait_for(lambda: re.search("again .* (Success|Failed)", queue.run("dvc", "queue", "status")), every_s=1.0)
    assert "going on from the state" in queue.run("dvc", "queue", "logs", "again")
    assert recorded(queue, "again", "grpo_reasoning") == experiment
