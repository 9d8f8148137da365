"""The decoder of few operations is that of transformers; what it does not know it leaves to transformers."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from fakes import llama, mistral, qwen2, qwen3
from torch import Tensor, nn
from transformers import PreTrainedModel

from chainforge.models.decoder import hidden_states, is_known, merge

ROPE: dict[str, dict[str, Any]] = {
    "plain": {"rope_theta": 10_000.0},
    "linear": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8,
        "rope_theta": 10_000.0,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10_000.0},
}
VARIANTS: dict[str, Callable[[], PreTrainedModel]] = {
    **{f"rope {name}": lambda r=rope: llama(rope_parameters=r) for name, rope in ROPE.items()},
    "biases": lambda: llama(attention_bias=True, mlp_bias=True),
    "tied": lambda: qwen2(tie_word_embeddings=True),
    "one kv head": lambda: qwen3(num_key_value_heads=1),
    "as many kv heads": lambda: qwen2(num_key_value_heads=4),
}


IDS_BS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])


def with_gradient(model: PreTrainedModel, hidden_BSH: Tensor) -> tuple[Tensor, Tensor]:
    hidden_BSH.square().sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return hidden_BSH.detach(), gradient


def by_transformers(model: PreTrainedModel) -> Tensor:
    hidden_BSH: Tensor = model.get_decoder()(input_ids=IDS_BS, use_cache=False).last_hidden_state
    return hidden_BSH


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("kind", VARIANTS)
def test_every_variant_is_transformers(kind: str, merged: bool) -> None:
    model = VARIANTS[kind]()
    assert is_known(model.get_decoder())
    wanted, wanted_gradient = with_gradient(model, by_transformers(model))
    pieces = merge(model) if merged else None
    assert (pieces is not None) == merged
    found, gradient = with_gradient(model, hidden_states(model, IDS_BS, merged=pieces))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert (gradient - wanted_gradient).norm() < 1e-5 * wanted_gradient.norm()


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_merged_weights_give_the_same(precision: torch.dtype, biased: bool) -> None:
    model = llama(sharpness=0.1, attention_bias=biased, mlp_bias=biased)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.copy_(torch.linspace(-1, 1, weight.numel()))
    model = model.to(precision)
    pieces = merge(model)
    assert pieces is not None
    assert all((part[1] is not None) == biased for each in pieces for part in (each.qkv, each.gate_up))
    with torch.no_grad():
        found, wanted = (hidden_states(model, IDS_BS, merged=each) for each in (pieces, None))
    close = 1e-5 if precision == torch.float32 else 0.05
    torch.testing.assert_close(found, wanted, atol=close, rtol=close)


class Adapted(nn.Module):
    """As adapters are: a module around a linear one."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner, self.extra = inner, nn.Linear(inner.in_features, inner.out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.extra(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("place", ["self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"])
def test_adapters_are_computed_and_not_merged(place: str) -> None:
    model = qwen2()
    parent, name = place.split(".")
    part = model.get_decoder().layers[1].get_submodule(parent)
    setattr(part, name, Adapted(part.get_submodule(name)))
    assert is_known(model.get_decoder())
    assert name in ("o_proj", "down_proj") or merge(model) is None
    wanted, wanted_gradient = with_gradient(model, by_transformers(model))
    found, gradient = with_gradient(model, hidden_states(model, IDS_BS, merged=merge(model)))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert (gradient - wanted_gradient).norm() < 1e-5 * wanted_gradient.norm()


def test_what_is_not_known_stays_as_it_is() -> None:
    window = qwen2(use_sliding_window=True, sliding_window=4, max_window_layers=0)
    other_attention = qwen2()
    other_attention.set_attn_implementation("eager")
    other_layer = qwen2()
    layers = other_layer.get_decoder().layers
    layers[1].__class__ = type("Layer", (type(layers[1]),), {})
    for model in (window, other_attention, other_layer, mistral()):
        assert not is_known(model.get_decoder())
        assert merge(model) is None
        assert torch.equal(hidden_states(model, IDS_BS), by_transformers(model))


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("kind", [qwen2, qwen3])
def test_a_sparse_gradient_of_the_embedding_is_the_same(
    kind: Callable[..., PreTrainedModel], precision: torch.dtype | None
) -> None:
    grads = []
    for sparse in (False, True):
        model = kind()
        with torch.autocast("cpu", dtype=precision) if precision else nullcontext():
            hidden_BSH = hidden_states(model, IDS_BS, sparse=sparse)
        hidden_BSH.square().sum().backward()
        grad = model.get_input_embeddings().weight.grad
        assert grad.is_sparse == sparse
        grads.append(grad.to_dense())
    torch.testing.assert_close(*grads)
