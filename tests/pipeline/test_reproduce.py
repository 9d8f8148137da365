"""`make reproduce DRY=1`: the published recipe's own steps run, from a model folder to the table."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tree import ROOT

SCRIPT = ROOT / "benchmarks/reproduce.py"


def reproduce(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *words], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.long
@pytest.mark.slow
def test_a_dry_run_takes_the_needed_steps_alone_and_ends_in_the_table(tmp_path: Path) -> None:
    params = (ROOT / "params.yaml").read_bytes()
    ended = reproduce("0.5b", "--dry", "--folder", str(tmp_path / "run"))
    assert ended.returncode == 0, ended.stderr
    ran = re.findall(r"^Running stage '(.+)':$", ended.stdout, re.MULTILINE)
    assert set(ran) == {
        *("lock", "prompts@reasoning", "prompts@general", "bench@reasoning", "grpo_reasoning"),
        *("evaluate_base@base-reasoning", "evaluate@qwen_rl_ckpt_stage2-reasoning"),
    }
    assert re.search(r"^\| untouched \| 12 \| [\d.]+ \[", ended.stdout, re.MULTILINE)
    assert re.search(r"^\| GRPO, LoRA, 116 steps \| 12 \| [\d.]+ \[", ended.stdout, re.MULTILINE)
    adapter = json.loads(
        (tmp_path / "run/checkpoints/qwen_rl_ckpt_stage2/adapter/adapter_config.json").read_text()
    )
    assert (adapter["r"], adapter["lora_alpha"]) == (32, 32)
    again = reproduce("0.5b", "--dry", "--folder", str(tmp_path / "run"))
    assert "Running stage 'grpo_reasoning'" not in again.stdout  # it is done
    assert again.stdout.splitlines()[-6:] == ended.stdout.splitlines()[-6:]
    assert (ROOT / "params.yaml").read_bytes() == params


@pytest.mark.slow
def test_a_folder_without_the_problems_is_named(tmp_path: Path) -> None:
    ended = reproduce("1.5b", "--dry", "--folder", str(tmp_path / "run"), "--gsm8k", str(tmp_path))
    assert ended.returncode == 1
    assert f"{tmp_path} has no train.jsonl\n  -> name a folder" in ended.stderr
