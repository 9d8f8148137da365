"""One of a step's processes is killed, wherever it is: the step ends, goes on, and ends in the same bytes."""

import os
import random
import signal
import statistics
import subprocess
import time

import psutil
import pytest
from clone import Clone, copy_clone, make_clone
from interrupting import said, start, under_way, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.long]

STEP = ("python", "-m", "stages.grpo", "grpo_reasoning")
ENDS_WITHIN_S = 60.0  # the code kills whoever is left after 6; the rest is for a machine that is busy
OUTPUTS = ("checkpoints/qwen_rl_ckpt_stage2", "metrics", "plots")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """GRPO is the next to run, in two processes."""
    clone = make_clone(tmp_path_factory.mktemp("ready") / "clone")
    clone.put("runtime.processes", 2)
    clone.put("runtime.save_every_s", 0)
    clone.put("grpo_reasoning.num_rl_steps", 30)
    clone.put("grpo.ref_sync_steps", 3)
    clone.run("dvc", "repro", "prompts", "sft_cold_start")
    return clone


@pytest.fixture(scope="module")
def undisturbed(ready: Clone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    clone = copy_clone(ready, tmp_path_factory.mktemp("undisturbed") / "clone")
    clone.run(*STEP)
    return clone.sha256(*OUTPUTS)


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [child for child in psutil.Process(process.pid).children() if "python" in child.name()]


@pytest.mark.parametrize("moments", [1, 10])
def test_a_killed_rank_ends_the_run_which_goes_on_to_the_same_bytes(
    ready: Clone, undisturbed: dict[str, str], tmp_path_factory: pytest.TempPathFactory, moments: int
) -> None:
    clone = copy_clone(ready, tmp_path_factory.mktemp("killed") / "clone")
    chance = random.Random(moments)
    took: list[float] = []  # seconds from a kill to the end of the step, which outlives its ranks
    for _ in range(moments):
        process = start(clone, *STEP)
        wait_for(lambda: "going on" in said(clone), process) if took else wait_for(
            under_way(clone, "grpo_reasoning"), process
        )
        time.sleep(chance.uniform(0, 1))
        if process.poll() is not None:
            break
        ranks = ranks_of(process)
        number = chance.randrange(2)
        os.kill(ranks[number].pid, signal.SIGKILL)
        killed = time.monotonic()
        code = process.wait(timeout=ENDS_WITHIN_S)
        took.append(time.monotonic() - killed)
        assert code == 128 + signal.SIGKILL, said(clone)
        assert f"grpo_reasoning: rank {number} of 2 was killed (signal 9)" in said(clone)
        assert "Traceback" not in said(clone)
        assert not any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks)
    assert "going on from the state" in clone.run(*STEP)
    assert took
    times = f"{[round(s, 1) for s in took]}, median {statistics.median(took):.1f}"
    print("from the kill to the end, s:", times)  # noqa: T201
    assert clone.sha256(*OUTPUTS) == undisturbed
    assert list(clone.folder.rglob("*.partial")) == []
