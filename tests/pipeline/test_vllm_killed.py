"""A vLLM server that is killed in the middle of a rollout: the step says so, and the next run goes on."""

import os
import shutil
import sys
from pathlib import Path

import psutil
import pytest
from clone import Clone, copy_clone
from interrupting import said, start, under_way, wait_for

sys.path.append(str(Path(__file__).parents[1] / "rollout"))

from fake_vllm import fake_command

pytestmark = [pytest.mark.slow, pytest.mark.long]

VLLM, MODEL = os.environ.get("CHAINFORGE_VLLM"), os.environ.get("CHAINFORGE_VLLM_MODEL")
STEP = "grpo_reasoning"


def sampling_with(command: str | Path, clone: Clone, **settings: object) -> Clone:
    changed = {"grpo.engine.kind": "vllm", "runtime.vllm.command": str(command), "runtime.save_every_s": 0}
    for key, value in (changed | settings).items():
        clone.put(key, value)
    return clone


def test_a_server_that_dies_costs_no_more_than_its_rollout(copy: Clone, tmp_path: Path) -> None:
    folders = [tmp_path / "well", tmp_path / "dying"]
    for folder in folders:
        folder.mkdir()
    well, dying = fake_command(folders[0]), fake_command(folders[1], die_after=60)
    short = {"grpo_reasoning.num_rl_steps": 6, "grpo.prompts_per_step": 2, "grpo.group_size": 4}
    sampling_with(well, copy, **short)
    undisturbed = copy_clone(copy, tmp_path / "undisturbed")
    undisturbed.run("dvc", "repro", STEP)
    copy.put("runtime.vllm.command", str(dying))
    failed = copy.run("dvc", "repro", STEP, fails=True)
    assert "has ended while sampling" in failed
    assert "run the same command again" in failed
    assert "Traceback" not in failed
    copy.put("runtime.vllm.command", str(well))
    assert "going on from the state" in copy.run("dvc", "repro", STEP)
    assert copy.sha256("checkpoints", "plots") == undisturbed.sha256("checkpoints", "plots")


@pytest.mark.server
def test_a_real_one_too(copy: Clone, tmp_path: Path) -> None:
    if not VLLM or not MODEL:
        pytest.skip("set CHAINFORGE_VLLM and CHAINFORGE_VLLM_MODEL: see docs/vllm.md")
    start_from = copy.folder / "checkpoints/qwen_sft_ckpt"
    shutil.rmtree(start_from)
    shutil.copytree(MODEL, start_from)
    short = {"num_rl_steps": 3, "prompts_per_step": 2, "group_size": 4, "max_new_tokens": 24}
    for key, value in {**short, "kl_coeff": 0.0, "mini_batches": 1}.items():
        copy.put(f"grpo.{key}" if key != "num_rl_steps" else f"{STEP}.{key}", value)
    sampling_with(Path(VLLM).resolve(), copy, **{"runtime.rollout_rows": 8})
    command = ("dvc", "repro", "--single-item", STEP)
    process = start(copy, *command)
    wait_for(under_way(copy, STEP), process)
    for child in psutil.Process(process.pid).children(recursive=True):
        if "vllm" in " ".join(child.cmdline()).lower() and "serve" in child.cmdline():
            child.kill()
    process.wait(timeout=600)
    assert process.returncode
    assert "has ended while" in said(copy) or "does not serve any more" in said(copy)
    assert "Traceback" not in said(copy)
    assert "going on from the state" in copy.run(*command)
