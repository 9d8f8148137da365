"""Student models `tiny_qwen2` and `pretrained`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loading import load_plugin, registered

import chainforge as cf

SUPERCOT = cf.tag_format("supercot")
tiny_qwen2 = registered("model_tiny_qwen2", "register_student_models")["tiny_qwen2"]
pretrained = registered("model_pretrained", "register_student_models")["pretrained"]
CHAT = [{"role": "user", "content": "12+35=?"}]


def rendered_examples() -> list[str]:
    prompts = list(load_plugin("prompts_procedural").procedural_reasoning(split="train", n=300, seed=17))
    traces = load_plugin("teacher_procedural").Procedural().generate(prompts, n=1, seed=17)
    return [
        prompt.messages[0]["content"] + SUPERCOT.render(trace.reasoning, trace.content)
        for prompt, trace in zip(prompts, traces, strict=True)
    ]


TEXTS = rendered_examples()


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    model, tokenizer = tiny_qwen2().load(seed=17, texts=TEXTS)
    return model, tokenizer


@pytest.fixture(scope="module")
def checkpoint(tiny: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    for part in tiny:
        part.save_pretrained(folder)
    return folder


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    ids = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        result: torch.Tensor = model(ids).logits
    return result


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_tokenizer(tiny: tuple[Any, Any], text: str) -> None:
    _, tokenizer = tiny
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_digit_and_every_tag_is_one_token_and_tags_stay_visible(tiny: tuple[Any, Any]) -> None:
    _, tokenizer = tiny
    assert len(tokenizer) == 400
    assert len(tokenizer.encode("0123456789")) == 10
    response = SUPERCOT.render("4+5=9", "9")
    ids = tokenizer.encode(response + "<|im_end|>")
    assert len(ids) == 4 + 5 + 1 + 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == response


def test_the_chat_template_is_chatml_and_the_end_of_a_turn_is_eos(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    text = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\n12+35=?<|im_end|>\n<|im_start|>assistant\n"
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    for config in (model.config, model.generation_config):
        assert config.eos_token_id == tokenizer.eos_token_id
        assert config.pad_token_id == tokenizer.pad_token_id


def test_the_same_seed_gives_the_same_model_and_leaves_torch_s_generator_alone(
    tiny: tuple[Any, Any],
) -> None:
    before = torch.get_rng_state()
    again, tokenizer = tiny_qwen2().load(seed=17, texts=TEXTS)
    other, _ = tiny_qwen2().load(seed=18, texts=TEXTS)
    assert torch.equal(torch.get_rng_state(), before)
    assert tokenizer.get_vocab() == tiny[1].get_vocab()
    assert torch.equal(logits(again, tokenizer), logits(*tiny))
    assert not torch.equal(logits(other, tokenizer), logits(*tiny))
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}


def test_a_saved_tiny_model_comes_back_the_same(tiny: tuple[Any, Any], checkpoint: Path) -> None:
    model, tokenizer = pretrained(model=str(checkpoint)).load(seed=0, texts=[])
    assert torch.equal(logits(model, tokenizer), logits(*tiny))
    assert tokenizer.encode(TEXTS[0]) == tiny[1].encode(TEXTS[0])
    assert tokenizer.chat_template == tiny[1].chat_template
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.decode(tokenizer.encode(TEXTS[0]), skip_special_tokens=True) == TEXTS[0]


def test_a_student_can_share_its_teacher_s_tokenizer(tiny: tuple[Any, Any], checkpoint: Path) -> None:
    model, tokenizer = tiny_qwen2(hidden=32, tokenizer=checkpoint).load(seed=1, texts=["other"])
    assert tokenizer.get_vocab() == tiny[1].get_vocab()
    assert model.config.vocab_size == len(tokenizer)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"vocab": 200}, "a vocab of 200 is too small"),
        ({"hidden": 66, "heads": 4, "kv_heads": 2}, "do not fit together"),
        ({"heads": 2, "kv_heads": 3}, "do not fit together"),
        ({"layers": 0}, "layers is 0"),
        ({"vocab": 10**12}, "vocab is 1000000000000"),
        ({"layers": 10**9}, "layers is 1000000000"),
        ({"hidden": 10**8, "heads": 1, "kv_heads": 1}, "make .* parameters"),
        ({"initializer_range": -1.0}, "initializer_range is -1.0"),
        ({"initializer_range": float("nan")}, "initializer_range is nan"),
    ],
)
def test_sizes_that_cannot_be_are_errors(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(cf.ChainForgeError, match=complaint):
        tiny_qwen2(**settings)


def test_a_tokenizer_needs_texts_or_a_folder_that_has_one(tmp_path: Path) -> None:
    with pytest.raises(cf.ChainForgeError, match="no texts to learn its tokenizer from"):
        tiny_qwen2().load(seed=1, texts=[])
    with pytest.raises(cf.ChainForgeError, match=r"has no tokenizer\.json"):
        tiny_qwen2(tokenizer=tmp_path).load(seed=1, texts=["text"])


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_a_pretrained_model_is_whole_or_refused(checkpoint: Path, tmp_path: Path, name: str) -> None:
    folder = edited(checkpoint, tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(cf.ChainForgeError, match=f"{tmp_path.name} cannot be loaded: .*{name}"):
        pretrained(model=folder).load(seed=0, texts=[])


def edited(checkpoint: Path, folder: Path, **changes: object) -> str:
    """A copy of a checkpoint whose tokenizer_config.json differs."""
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return str(folder)


def test_eos_is_mended_to_what_the_template_ends_a_turn_with(checkpoint: Path, tmp_path: Path) -> None:
    folder = edited(checkpoint, tmp_path, eos_token="<|endoftext|>", pad_token=None)
    model, tokenizer = pretrained(model=folder).load(seed=0, texts=[])
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert model.generation_config.eos_token_id == model.config.eos_token_id == tokenizer.eos_token_id


def test_a_model_without_a_chat_template_is_an_error(checkpoint: Path, tmp_path: Path) -> None:
    folder = edited(checkpoint, tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(cf.ChainForgeError, match="has no chat template"):
        pretrained(model=folder).load(seed=0, texts=[])


@pytest.mark.parametrize("name", ["./checkpoints/typo", "/nowhere/at/all", "data/models/qwen"])
def test_a_folder_without_a_model_is_not_looked_up_on_the_network(name: str) -> None:
    with pytest.raises(cf.ChainForgeError, match=r"is not a model folder: no config\.json"):
        pretrained(model=name).load(seed=0, texts=[])


def test_a_hub_that_cannot_be_reached_is_an_error_that_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(cf.ChainForgeError, match=r"nobody/nothing cannot be loaded: .*\n.*to its folder"):
        pretrained(model="nobody/nothing").load(seed=0, texts=[])
