"""What saves time or memory in a training pass changes neither values nor gradients."""

from collections.abc import Callable, Sequence

import pytest
import torch
from fakes import llama, qwen2, qwen3
from torch import Tensor
from torch.nn import Dropout
from transformers import OPTConfig, OPTForCausalLM, PreTrainedModel

from chainforge.config.sampling import SamplingSettings
from chainforge.learner.forward_passes import mixed_precision
from chainforge.models import decoder
from chainforge.models.batch import Tokens, collate
from chainforge.models.checkpoint import place
from chainforge.models.policy_model import PolicyModel
from chainforge.rollout.engine import Request
from chainforge.rollout.sampler import sample

CPU = torch.device("cpu")
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen2": lambda: place(qwen2(sharpness=0.1), CPU),
    "llama": lambda: place(llama(sharpness=0.1), CPU),
    "qwen3": lambda: place(qwen3(sharpness=0.1), CPU),
    "sliding window": lambda: place(
        qwen2(sharpness=0.1, use_sliding_window=True, sliding_window=4, max_window_layers=0), CPU
    ),
}
SEQUENCES = [Tokens([3, 1, 4], [1, 5, 9, 2, 6, 5, 3]), Tokens([5], [3]), Tokens([5, 8, 9, 7], [2, 3, 8])]


def run(
    model: PreTrainedModel, precision: str, *, checkpointing: bool, sequences: Sequence[Tokens] = SEQUENCES
) -> tuple[Tensor, Tensor]:
    policy = PolicyModel(model, gradient_checkpointing=checkpointing)
    with mixed_precision(precision, CPU, keep_casts=not checkpointing):
        logp_BT = policy(collate(sequences, CPU)).logp_BT
    logp_BT.square().sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return logp_BT.detach(), gradient


def kept(model: PreTrainedModel, *, checkpointing: bool) -> int:
    """Bytes that autograd keeps for the backward pass."""
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.nbytes if not isinstance(tensor, torch.nn.Parameter) else 0)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        run(model, "float32", checkpointing=checkpointing)
    return sum(sizes)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", MODELS)
def test_checkpointing_gives_the_same_values_and_gradients(kind: str, precision: str) -> None:
    model = MODELS[kind]()
    for one, other in zip(
        run(model, precision, checkpointing=False), run(model, precision, checkpointing=True), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_checkpointing_keeps_less(kind: str) -> None:
    model = MODELS[kind]()
    assert kept(model, checkpointing=True) < 0.5 * kept(model, checkpointing=False)


def test_transformers_layers_run_again_and_nothing_inside_of_them_is_in_training_mode() -> None:
    model, calls = MODELS["sliding window"](), []
    mlp = model.get_decoder().layers[0].mlp
    mlp.register_forward_pre_hook(lambda *_: calls.append(mlp.training))
    run(model, "float32", checkpointing=True)
    assert calls == [False, False]


@pytest.mark.parametrize("kind", MODELS)
def test_outside_of_a_forward_pass_nothing_is_in_training_mode_even_after_an_error(kind: str) -> None:
    model = MODELS[kind]()
    before, modes = model.config.to_json_string(), {type(m): m.training for m in model.modules()}
    policy = PolicyModel(model, gradient_checkpointing=True)
    assert not any(module.training for module in model.modules())
    logp_BT = policy(collate(SEQUENCES, CPU)).logp_BT
    assert not any(module.training for module in model.modules())
    logp_BT.sum().backward()
    assert not any(module.training for module in model.modules())

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    model.get_decoder().layers[1].mlp.down_proj.register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        policy(collate(SEQUENCES, CPU))
    assert {type(m): m.training for m in model.modules()} == modes
    assert not any("forward" in vars(module) for module in model.modules())
    assert model.config.to_json_string() == before


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_trains_so_samples_as_before(kind: str) -> None:
    model = MODELS[kind]()
    settings = SamplingSettings(max_new_tokens=3)
    found = []
    for _ in range(2):
        found.append(sample(model, [Request([1, 2], [3, 4])], settings, eos_ids=[0], max_rows=4))
        run(model, "float32", checkpointing=True)
    assert found[0] == found[1]


def test_dropout_that_a_layer_does_itself_stays_off_too() -> None:
    config = OPTConfig(
        vocab_size=11, hidden_size=16, word_embed_proj_dim=16, ffn_dim=24, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, dropout=0.5,
    )  # fmt: skip
    model = place(OPTForCausalLM(config), CPU)
    wanted = run(model, "float32", checkpointing=False)
    for found, right in zip(run(model, "float32", checkpointing=True), wanted, strict=True):
        torch.testing.assert_close(found, right, atol=1e-6, rtol=1e-5)
    assert kept(model, checkpointing=True) < 0.5 * kept(model, checkpointing=False)


def test_dropout_stays_off_while_layers_run_again() -> None:
    model = qwen2(attention_dropout=0.5)
    model.get_decoder().layers[0].mlp.add_module("extra", Dropout(0.5).eval())
    one, other = (run(model, "float32", checkpointing=True) for _ in range(2))
    assert torch.equal(one[0], other[0])
    torch.testing.assert_close(one[0], run(model, "float32", checkpointing=False)[0])


@pytest.mark.parametrize("kind", MODELS)
def test_float32_is_what_transformers_computes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[kind]()
    found, gradient = run(model, "float32", checkpointing=False)
    monkeypatch.setattr(decoder, "is_known", lambda _: False)
    model.set_attn_implementation("sdpa")
    wanted, wanted_gradient = run(model, "float32", checkpointing=False)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)
    assert (gradient - wanted_gradient).norm() < 1e-6 * wanted_gradient.norm()


@pytest.mark.parametrize("kind", MODELS)
def test_bfloat16_is_as_near_to_float32_as_it_is_without(kind: str) -> None:
    model = MODELS[kind]()
    exact, exact_gradient = run(model, "float32", checkpointing=False)
    found, gradient = run(model, "bfloat16", checkpointing=False)
    torch.testing.assert_close(found, exact, atol=0.03, rtol=0)
    assert (gradient - exact_gradient).norm() < 0.03 * exact_gradient.norm()
