"""A model from files is whole and from safetensors, or one message says what is wrong with them."""

import json
import math
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import policy, tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, GenerationConfig

import chainforge as cf
from chainforge.models.chat import eos_ids
from chainforge.models.checkpoint import Policy, load_policy, save_policy

CPU = torch.device("cpu")
WEIGHTS = "model.safetensors"
Damage = Callable[[Path], None]


def saved(folder: Path, **changes: Any) -> Path:
    save_policy(policy(**changes), folder)
    return folder


def edited(**changes: Any) -> Damage:
    """Other entries in config.json."""

    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def reweighed(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Damage:
    """Other tensors in the weights."""
    return lambda folder: save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})


def written(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content) and None


def without(tensors: dict[str, torch.Tensor], end: str) -> dict[str, torch.Tensor]:
    return {name: t for name, t in tensors.items() if not name.endswith(end)}


def with_one(tensors: dict[str, torch.Tensor], value: float) -> dict[str, torch.Tensor]:
    tensors["model.norm.weight"][3] = value
    return tensors


class Malice:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("pwned"),)


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Malice()))


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a weight missing": (
        reweighed(lambda t: without(t, "layers.1.mlp.up_proj.weight")),
        r"model\.layers\.1\.mlp\.up_proj\.weight is missing in its weights",
    ),
    "several missing": (
        reweighed(lambda t: without(t, "_proj.weight")),
        r"model\.layers\.0\.mlp\.down_proj\.weight, .* and 11 more are missing in its weights",
    ),
    "another prefix": (
        reweighed(lambda t: {f"module.{name}": tensor for name, tensor in t.items()}),
        r"model\.embed_tokens\.weight, .* more are missing in its weights",
    ),
    "another shape": (
        reweighed(lambda t: t | {"model.norm.weight": torch.ones(3)}),
        r"model\.norm\.weight is of another shape",
    ),
    "a layer too many": (
        edited(num_hidden_layers=1, layer_types=None, max_window_layers=1),
        r"model\.layers\.1\..* without a place in the model",
    ),
    "infinite": (reweighed(lambda t: with_one(t, math.inf)), r"model\.norm\.weight is not finite"),
    "no number": (reweighed(lambda t: with_one(t, math.nan)), r"model\.norm\.weight is not finite"),
    "garbage": (written(WEIGHTS, b"\x07" * 500), "its weights: "),
    "an index of nothing": (
        lambda folder: (folder / WEIGHTS).rename(folder / "model.safetensors.index.json") and None,
        "its weights: ",
    ),
    "a pickle": (pickled, r"has its weights in pytorch_model\.bin, which can run code"),
    "code": (edited(auto_map={"AutoModelForCausalLM": "m.Model"}), r"code of its own \(auto_map in config"),
    "code of the tokenizer": (
        written("tokenizer_config.json", b'{"auto_map": {"AutoTokenizer": ["t.T", null]}}'),
        r"code of its own \(auto_map in tokenizer_config",
    ),
    "quantized": (
        edited(quantization_config={"quant_method": "gptq", "bits": 4}),
        r"has quantized weights, .*\n.*bfloat16",
    ),
    "another attention": (
        edited(attn_implementation="flash_attention_2"),
        r"wants 'flash_attention_2' \(attn_implementation in config\.json\).*\n  -> .*remove",
    ),
    "a list": (written("config.json", b"[1, 2]"), r"config\.json holds a list, not an object"),
    "a text for a number": (edited(hidden_size="many"), "its config.json: .*hidden_size"),
    "no heads": (edited(num_attention_heads=0), "its config.json: "),
    "absurdly wide": (edited(hidden_size=10**9), r"would have [\d,]+ weights, [\d,.]+ GB"),
    "absurdly deep": (edited(num_hidden_layers=10**9, layer_types=None), "num_hidden_layers is 1000000000"),
    "no such function": (edited(hidden_act="nope"), "its config.json: KeyError: 'nope'"),
    "not a causal family": (edited(model_type="t5"), "its config.json: "),
    "a tokenizer of nothing": (written("tokenizer.json", b"{}"), "its tokenizer: "),
    "a tokenizer that is a list": (written("tokenizer.json", b"[]"), r"tokenizer\.json holds a list"),
    "tokenizer settings that are none": (written("tokenizer_config.json", b"{"), "is not JSON"),
}


@pytest.mark.dear
@pytest.mark.parametrize("name", DAMAGES)
def test_broken_files_are_one_message_by_both_loaders(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    damage, complaint = DAMAGES[name]
    monkeypatch.chdir(tmp_path)
    folder = saved(tmp_path / "model")
    damage(folder)

    def load_both() -> None:
        cf.load_model(folder)
        cf.load_tokenizer(folder)

    for load in (lambda: load_policy(folder, CPU), load_both):
        with pytest.raises(cf.ChainForgeError, match=complaint) as caught:
            load()
        assert caught.value.problem.startswith(str(folder))
        assert len(str(caught.value).splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "code was run"
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@given(cut=st.integers(0, 2**20), flip=st.integers(0, 400), bit=st.integers(0, 7))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_happens_to_a_file_it_loads_or_is_refused(
    tmp_path: Path, cut: int, flip: int, bit: int
) -> None:
    folder = tmp_path / "model"
    whole = tmp_path / "whole"
    if not folder.exists():
        saved(folder)
        whole.write_bytes((folder / WEIGHTS).read_bytes())
    content = bytearray(whole.read_bytes())
    content[flip] ^= 1 << bit
    (folder / WEIGHTS).write_bytes(content[: max(1, len(content) - cut % len(content))])
    with suppress(cf.ChainForgeError):  # and nothing else
        assert all(weight.isfinite().all() for weight in cf.load_model(folder).parameters())


def test_reading_draws_nothing_from_torch_s_generator(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    before = torch.get_rng_state()
    load_policy(folder, CPU)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.dear
@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("is_one", [True, False])
def test_tied_or_not_a_checkpoint_comes_back_as_it_was(tmp_path: Path, says: bool, is_one: bool) -> None:
    """Whatever its config says of the two embeddings."""
    made = policy(tie_word_embeddings=is_one)
    made.model.config.tie_word_embeddings = says
    save_policy(made, tmp_path)
    back = load_policy(tmp_path, CPU)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(back.model(ids).logits, made.model(ids).logits)
    tables = back.model.get_input_embeddings().weight, back.model.get_output_embeddings().weight
    assert (tables[0] is tables[1]) == is_one == back.model.config.tie_word_embeddings


def test_an_output_embedding_that_is_not_there_is_asked_after(tmp_path: Path) -> None:
    folder = saved(tmp_path, tie_word_embeddings=True)
    edited(tie_word_embeddings=False)(folder)
    with pytest.raises(cf.ChainForgeError, match=r"lm_head\.weight is missing .* tie_word_embeddings: true"):
        load_policy(folder, CPU)


def test_an_encoder_is_no_policy(tmp_path: Path) -> None:
    toy = tokenizer()
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 24}
    BertForMaskedLM(BertConfig(vocab_size=len(toy), **sizes)).save_pretrained(tmp_path)
    toy.save_pretrained(tmp_path)
    with pytest.raises(cf.ChainForgeError, match="is not a causal language model"):
        load_policy(tmp_path, CPU)


def test_a_checkpoint_is_to_be_sampled_as_it_was_evaluated(tmp_path: Path) -> None:
    """Nothing is left of how the base model asks to be sampled, and every id that ends a completion is."""
    base = policy()
    base.model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.7, top_k=20, top_p=0.8, repetition_penalty=1.1, eos_token_id=[7, 9]
    )
    save_policy(base, tmp_path)
    ends = eos_ids(base.model, base.tokenizer)
    assert ends == [base.tokenizer.eos_token_id, 7, 9]
    left = json.loads((tmp_path / "generation_config.json").read_text())
    assert left.pop("transformers_version")
    assert {name: value for name, value in left.items() if value is not None} == {
        "do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "eos_token_id": ends
    }  # fmt: skip
    assert isinstance(load_policy(tmp_path, CPU), Policy)
