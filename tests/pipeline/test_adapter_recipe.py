"""The recipe with adapters: every checkpoint is a plain folder, its adapter beside the merged weights."""

import json

import pytest
import torch
from clone import Clone
from peft import PeftModel
from transformers import AutoModelForCausalLM

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]

PARENTS = {
    "qwen_rl_ckpt_stage2": "qwen_sft_ckpt",
    "qwen_sft_ckpt_stage3": "qwen_rl_ckpt_stage2",
    "qwen_rl_ckpt_final": "qwen_sft_ckpt_stage3",
}


def test_every_step_trains_a_new_adapter_on_the_merged_weights(
    copy: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy.folder)
    for section in ("sft", "grpo"):
        copy.put(f"{section}.adapter", {"kind": "lora", "rank": 4})
    copy.put("sft.muon_learning_rate", 0.0)
    copy.put("sft_refine.start_from", "checkpoints/qwen_rl_ckpt_stage2")
    copy.repro("grpo_final")
    ids = torch.tensor([[5, 6, 7, 8]])
    for child, parent in PARENTS.items():
        folder = f"checkpoints/{child}"
        merged = AutoModelForCausalLM.from_pretrained(folder)
        base = AutoModelForCausalLM.from_pretrained(f"checkpoints/{parent}")
        with torch.no_grad():
            wanted, before = merged(ids).logits, base(ids).logits
            found = PeftModel.from_pretrained(base, f"{folder}/adapter")(ids).logits
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
        assert not torch.equal(wanted, before)
        said = json.loads((copy.folder / folder / "adapter/adapter_config.json").read_text(encoding="utf-8"))
        assert said["base_model_name_or_path"] == f"checkpoints/{parent}"
    assert copy.repro("grpo_final") == ["lock"]
    made = copy.sha256("checkpoints", "metrics", "plots")
    copy.run("dvc", "repro", "--force", "--single-item", "grpo_final", "sft_refine")
    assert copy.sha256("checkpoints", "metrics", "plots") == made
