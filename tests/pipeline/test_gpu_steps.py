"""The stage scripts of SFT and GRPO on a GPU, from prompts to checkpoints."""

import pytest
import torch
from clone import Clone
from transformers import AutoModelForCausalLM

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sft_and_grpo_run_on_a_gpu(copy: Clone, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.folder)
    copy.put("runtime.device", "cuda")
    copy.put("run.precision", precision)
    copy.repro("grpo_reasoning")
    for name in ("qwen_sft_ckpt", "qwen_rl_ckpt_stage2"):
        model = AutoModelForCausalLM.from_pretrained(copy.folder / "checkpoints" / name)
        assert all(weight.isfinite().all() for weight in model.parameters())
        assert model.dtype == torch.float32
