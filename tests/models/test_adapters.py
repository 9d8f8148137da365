"""An adapter changes nothing when it is new, is all that is trained, and is merged exactly."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import zoo
from fakes import llama, mistral, qwen2, qwen3
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from chainforge.config import adapter as config
from chainforge.config.adapter import AdapterSettings
from chainforge.errors import ChainForgeError
from chainforge.models.adapters import (
    adapter_off,
    adapter_set_to,
    adapter_weights,
    attach_adapter,
    has_adapter,
    plain_weights,
    save_adapter,
)
from chainforge.models.batch import Tokens, collate
from chainforge.models.policy_model import PolicyModel

LORA = AdapterSettings(kind="lora", rank=4, alpha=8)
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def gpt2(*, seed: int = 0) -> PreTrainedModel:
    """Its linear layers hold their weights the other way round."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 11, "n_positions": 32}
        tokens = {"bos_token_id": None, "eos_token_id": None}
        return GPT2LMHeadModel(GPT2Config(initializer_range=0.4, **sizes, **tokens)).eval()


MAKERS = pytest.mark.parametrize("make", [qwen2, llama, qwen3, mistral, gpt2])


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return model(IDS).logits  # type: ignore[no-any-return]


def trained(model: PreTrainedModel, settings: AdapterSettings = LORA, seed: int = 7) -> PreTrainedModel:
    """The same model with an adapter that says something."""
    attach_adapter(model, settings, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in adapter_weights(model).items():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return model


@pytest.mark.dear
@MAKERS
def test_a_new_one_changes_no_output_and_is_all_that_is_trained(make: Callable[..., PreTrainedModel]) -> None:
    model, before = make(), torch.get_rng_state()
    assert not has_adapter(model)
    assert not adapter_weights(model)
    attach_adapter(model, LORA, 7)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(logits(model), logits(make()))
    assert has_adapter(model)
    assert adapter_weights(model).keys() == {n for n, w in model.named_parameters() if w.requires_grad}
    assert not any(module.training for module in model.modules())


def test_its_weights_are_those_of_the_seed() -> None:
    first, same, other = qwen2(), qwen2(), qwen2()
    for model, seed in ((first, 1), (same, 1), (other, 2)):
        torch.rand(seed)
        attach_adapter(model, LORA, seed)
    pairs = zip(adapter_weights(first).values(), adapter_weights(same).values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    name = next(iter(adapter_weights(first)))
    assert "lora_A" in name
    assert not torch.equal(adapter_weights(first)[name], adapter_weights(other)[name])


@pytest.mark.dear
@MAKERS
@pytest.mark.parametrize("tied", [True, False])
def test_merged_it_is_a_plain_model_that_says_the_same(
    tied: bool, make: Callable[..., PreTrainedModel]
) -> None:
    options = {} if make is gpt2 else {"tie_word_embeddings": tied}
    model, plain = trained(make(**options)), make(seed=1, **options)
    base = make(**options).state_dict()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    merged = dict(plain_weights(model))
    assert list(merged) == list(plain.state_dict())
    plain.load_state_dict(merged)
    torch.testing.assert_close(logits(plain), logits(model), atol=1e-5, rtol=0)
    assert (logits(model) - logits(make(**options))).abs().max() > 0.1
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    moved = {name for name, weight in merged.items() if not torch.equal(weight, base[name])}
    assert moved == {f"{name.partition('.lora_')[0]}.weight" for name in adapter_weights(model)}


def test_over_rounded_weights_it_is_in_float32_and_merged_in_float32() -> None:
    model, plain = trained(qwen2().bfloat16()), qwen2()
    assert {weight.dtype for weight in adapter_weights(model).values()} == {torch.float32}
    plain.load_state_dict(dict(plain_weights(model)))
    assert logits(model).dtype == torch.bfloat16
    torch.testing.assert_close(logits(plain), logits(model).float(), atol=0.1, rtol=0.05)
    assert (logits(plain) - logits(qwen2())).abs().max() > 0.2


def test_without_an_adapter_the_weights_are_the_model_s_own() -> None:
    model = qwen2()
    found = dict(plain_weights(model))
    assert found.keys() == model.state_dict().keys()
    assert all(found[name].data_ptr() == weight.data_ptr() for name, weight in model.state_dict().items())


@MAKERS
def test_off_the_model_is_what_it_was(make: Callable[..., PreTrainedModel]) -> None:
    model = trained(make())
    with_it = logits(model)
    with adapter_off(model):
        assert torch.equal(logits(model), logits(make()))
        assert all(weight.requires_grad for weight in adapter_weights(model).values())
    assert torch.equal(logits(model), with_it)
    assert all(weight.requires_grad for weight in adapter_weights(model).values())


def test_it_can_be_what_it_was_for_a_while() -> None:
    model = trained(qwen2())
    early = {name: weight.detach().clone() for name, weight in adapter_weights(model).items()}
    then = logits(model)
    with torch.no_grad():
        for weight in adapter_weights(model).values():
            weight.mul_(1.5)
    now = logits(model)
    with adapter_set_to(model, early):
        assert torch.equal(logits(model), then)
    assert torch.equal(logits(model), now)
    assert not torch.equal(then, now)


BY_PEFT = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.mark.dear
@BY_PEFT
@MAKERS
def test_peft_loads_it_on_the_model_that_it_was_trained_on(
    make: Callable[..., PreTrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import AutoPeftModelForCausalLM, PeftModel

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # peft would look there for a tokenizer
    make().save_pretrained("checkpoints/parent")
    model = trained(AutoModelForCausalLM.from_pretrained("checkpoints/parent"))
    save_adapter(model, Path("made"), adapter_weights(model))
    on_parent = PeftModel.from_pretrained(make(), "made")
    torch.testing.assert_close(logits(on_parent), logits(model), atol=1e-5, rtol=0)
    by_name = AutoPeftModelForCausalLM.from_pretrained("made")
    torch.testing.assert_close(logits(by_name), logits(model), atol=1e-5, rtol=0)
    said = json.loads(Path("made/adapter_config.json").read_text(encoding="utf-8"))
    assert said["base_model_name_or_path"] == "checkpoints/parent"
    assert said["target_modules"] == sorted(said["target_modules"])
    assert {p.name for p in Path("made").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


@BY_PEFT
def test_no_path_of_this_machine_is_written(tmp_path: Path) -> None:
    from peft import PeftModel

    qwen2().save_pretrained(tmp_path / "parent")
    model = trained(AutoModelForCausalLM.from_pretrained(tmp_path / "parent"))
    save_adapter(model, tmp_path / "made", adapter_weights(model))
    assert str(tmp_path) not in (tmp_path / "made/adapter_config.json").read_text(encoding="utf-8")
    PeftModel.from_pretrained(qwen2(), tmp_path / "made")


def test_targets_are_the_layers_with_these_names() -> None:
    model = trained(qwen2(), AdapterSettings(kind="lora", rank=4, targets=["q_proj", "mlp.up_proj"]))
    layers = {name.partition(".lora_")[0].rpartition(".")[2] for name in adapter_weights(model)}
    assert layers == {"q_proj", "up_proj"}
    plain = qwen2()
    plain.load_state_dict(dict(plain_weights(model)))
    torch.testing.assert_close(logits(plain), logits(model), atol=1e-5, rtol=0)


@pytest.mark.parametrize("target", ["q_prj", "lm_head", "embed_tokens", "proj"])
def test_a_target_that_cannot_be_one_is_refused(target: str) -> None:
    model = qwen2()
    with pytest.raises(
        ChainForgeError, match=rf"no linear layer called '{target}'\n  -> .*known: down_proj,"
    ):
        attach_adapter(model, AdapterSettings(kind="lora", targets=["q_proj", target]), 0)
    assert not has_adapter(model)


@pytest.mark.parametrize(("kind", "package"), [("lora", "peft"), ("qlora", "bitsandbytes")])
def test_what_is_not_installed_is_named(kind: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "find_spec", lambda name: None if name == package else find_spec("json"))
    with pytest.raises(
        ChainForgeError, match=rf"needs the package {package}\n  -> pip install 'chainforge-r1\[{kind}\]'"
    ):
        attach_adapter(qwen2(), AdapterSettings(kind=kind), 0)


def test_four_bits_need_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "find_spec", lambda name: find_spec("json"))
    with pytest.raises(ChainForgeError, match=r"qlora needs CUDA, and the device is cpu: .* backward pass"):
        attach_adapter(qwen2(), AdapterSettings(kind="qlora"), 0)


@pytest.mark.slow
def test_it_is_small_where_models_are_large() -> None:
    """Three numbers are saved for each weight that is trained: itself and two moments."""
    sizes = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
    heads = {"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064}
    with torch.device("meta"):
        model = Qwen2ForCausalLM(Qwen2Config(**sizes, **heads))  # Qwen2.5-7B
        base = model.num_parameters()
        attach_adapter(model, AdapterSettings(kind="lora", rank=16), 0)
    assert 3 * sum(weight.numel() for weight in adapter_weights(model).values()) < 0.03 * base


@pytest.mark.slow
@pytest.mark.parametrize("architecture", zoo.RIGHT)
def test_of_every_architecture_the_merged_model_says_the_same_to_the_learner(architecture: str) -> None:
    kind, sizes = zoo.RIGHT[architecture]
    model, plain = (zoo.make(kind, sizes, loud=True) for _ in range(2))
    batch = collate([Tokens([1, 2, 3], [4, 5, 6, 7]), Tokens([3], [1, 2])], torch.device("cpu"))
    before = PolicyModel(plain)(batch).logp_BT.detach()
    found = PolicyModel(trained(model))(batch).logp_BT
    found.sum().backward()
    assert all(weight.grad is not None for weight in adapter_weights(model).values())
    merged = dict(plain_weights(model))
    assert list(merged) == list(plain.state_dict())
    plain.load_state_dict(merged)
    off = (PolicyModel(plain)(batch).logp_BT - found).abs().max() / before.abs().max()
    assert off < 1e-5
    assert not torch.allclose(found, before, atol=0.01)


@pytest.mark.gpu
def test_over_four_bits_the_adapter_learns_and_is_merged() -> None:
    pytest.importorskip("bitsandbytes")
    sizes = {"hidden_size": 64, "intermediate_size": 128}
    model = trained(qwen2(64, **sizes).cuda(), AdapterSettings(kind="qlora", rank=4, alpha=8))
    assert model.model.layers[0].mlp.up_proj.base_layer.weight.dtype == torch.uint8
    ids = IDS.cuda()
    with torch.no_grad():
        model(ids)
    model(ids).logits.float().square().mean().backward()
    assert all(weight.grad is not None for weight in adapter_weights(model).values())
    plain = qwen2(64, seed=1, **sizes).cuda()
    merged = dict(plain_weights(model))
    assert list(merged) == list(plain.state_dict())
    assert {weight.dtype for weight in merged.values()} == {torch.float32}
    plain.load_state_dict(merged)
    off = (plain(ids).logits - model(ids).logits).abs().mean()  # products in bfloat16
    assert off < 0.05 * model(ids).logits.std()
