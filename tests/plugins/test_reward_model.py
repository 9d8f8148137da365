"""Reward `reward_model`: a tiny classifier, held against the model itself."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import ROOT, SUPERCOT, completion, prompt, tokenizer
from transformers import Qwen2Config, Qwen2ForSequenceClassification

from chainforge.errors import ChainForgeError
from chainforge.plugins import load_plugins
from chainforge.records import Prompt
from chainforge.scoring import Scorer
from chainforge.wiring import make_reward

ENTRY = load_plugins(ROOT / "plugins").pick("rewards", "reward_model")
TEXTS = [SUPERCOT.render("so", "5"), SUPERCOT.render("other", "5"), "5", SUPERCOT.render("so", "6")]


def classifier(folder: Path, labels: int) -> Qwen2ForSequenceClassification:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer()), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, num_labels=labels,
    )  # fmt: skip
    model = Qwen2ForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return model


def values(asked: Prompt, texts: list[str], **settings: object) -> list[float | None]:
    reward = make_reward(ENTRY, 1.0, settings)
    here = replace(reward, options=replace(reward.options, isolation="inline"))  # torch is imported already
    with Scorer((here,), SUPERCOT, 60.0) as scorer:
        (group,) = scorer.score([asked], [[completion(asked, text) for text in texts]])
    return [score.parts["reward_model"] for score in group.scores]


def test_it_is_the_model_s_score_of_the_part(tmp_path: Path) -> None:
    model, asked = classifier(tmp_path, 1), prompt()

    def expected(answer: str) -> float:
        turns = [*map(dict, asked.messages), {"role": "assistant", "content": answer}]
        text = str(tokenizer().apply_chat_template(turns, tokenize=False))
        ids = tokenizer()(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            return float(model(input_ids=torch.tensor([ids])).logits[0, 0])

    summaries = values(asked, TEXTS, model=str(tmp_path))
    assert summaries == pytest.approx([expected(answer) for answer in ("5", "5", "", "6")], abs=1e-5)
    whole = values(asked, TEXTS, model=str(tmp_path), part="response")
    assert whole == pytest.approx([expected(text) for text in TEXTS], abs=1e-5)


def test_of_several_labels_one_must_be_named(tmp_path: Path) -> None:
    classifier(tmp_path, 3)
    found = [values(prompt(), TEXTS, model=str(tmp_path), label=f"LABEL_{i}") for i in range(3)]
    for shares in zip(*found, strict=True):
        assert sum(shares) == pytest.approx(1.0)  # type: ignore[arg-type]
    with pytest.raises(ChainForgeError, match="has several labels\n  -> set `label` to one of: LABEL_0"):
        values(prompt(), TEXTS, model=str(tmp_path))
