"""The decoder of few operations is that of transformers, piece by piece; what it does not know it leaves."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fakes import llama, qwen2, qwen3
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from chainforge.models.decoder import short_attention as short
from chainforge.models.decoder.attention import fused_attention
from chainforge.models.decoder.projection import Projection
from chainforge.models.decoder.quick import is_known, quick_decoder
from chainforge.models.decoder.rms_norm import rms_norm
from chainforge.models.decoder.rotary import rotate
from chainforge.models.decoder.short_attention import short_attention
from chainforge.models.decoder.swiglu import swiglu

Make = Callable[..., Tensor]
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


def values_and_gradients(formula: Make, *inputs: Tensor) -> list[Tensor]:
    """The result, and the gradients of the sum of its squares."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    result = formula(*leaves)
    result.float().square().sum().backward()
    return [result.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def same(one: Make, other: Make, *inputs: Tensor) -> None:
    for a, b in zip(values_and_gradients(one, *inputs), values_and_gradients(other, *inputs), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)
    with torch.no_grad():
        torch.testing.assert_close(one(*inputs), other(*inputs), atol=1e-5, rtol=1e-5)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


seeds, sizes = st.integers(0, 2**31), st.integers(1, 9)


@given(seed=seeds, rows=sizes, size=sizes, scale=st.sampled_from([1e-4, 1.0, 1e3]))
def test_the_norm_is_transformers(seed: int, rows: int, size: int, scale: float) -> None:
    theirs = LlamaRMSNorm(size, eps=1e-6)

    def formula(x: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(theirs, {"weight": weight}, x)

    x, weight = scale * random(seed, 2, rows, size), random(seed + 1, size)
    found, wanted = (
        values_and_gradients(f, x, weight)
        for f in (lambda x, w: rms_norm(x, w, 1e-6, torch.float32), formula)
    )
    steepest = x.square().mean(-1).add(1e-6).rsqrt().max() * (2 * wanted[0] * weight).norm()
    for a, b, least in zip(found, wanted, (0, steepest, 0), strict=True):
        assert (a - b).norm() <= 1e-5 * (b.norm() + least)  # the gradient of x is a difference of such terms


@given(seed=seeds, heads=sizes, length=sizes, half=sizes)
def test_turning_is_transformers(seed: int, heads: int, length: int, half: int) -> None:
    angle = random(seed, 1, length, half).repeat(1, 1, 2)
    cos, sin = angle.cos(), angle.sin()
    x = random(seed + 1, 2, heads, length, 2 * half)
    same(
        lambda x: rotate(x, cos.unsqueeze(1), sin.unsqueeze(1)),
        lambda x: apply_rotary_pos_emb(x, x, cos, sin)[0],
        x,
    )


@given(seed=seeds, rows=sizes, size=sizes)
def test_the_gate_is_its_formula(seed: int, rows: int, size: int) -> None:
    same(
        swiglu, lambda g, u: nn.functional.silu(g) * u, random(seed, rows, size), random(seed + 1, rows, size)
    )


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_a_projection_gives_what_each_layer_gives(together: bool, bias: bool, keep: bool) -> None:
    layers = [nn.Linear(5, size, bias=bias) for size in (3, 1, 4)]
    project = Projection(*layers, together=together, keep=keep)
    for seed in (0, 1):
        x = random(seed, 2, 5)
        for found, layer in zip(project(x), layers, strict=True):
            torch.testing.assert_close(found, layer(x))


def test_weights_that_are_kept_take_gradients_of_several_passes_in_float32() -> None:
    layer = nn.Linear(4, 3)
    project = Projection(layer, together=False, keep=True)
    inputs = [random(seed, 6, 4).bfloat16() for seed in (0, 1)]
    for x in inputs:
        project(x)[0].float().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    wanted = sum(x.float().sum(0) for x in inputs)
    torch.testing.assert_close(layer.weight.grad, wanted.expand(3, 4), atol=0.03, rtol=0.01)


def hidden_and_gradient(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    tokens_BS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])
    hidden_BSH: Tensor = model.get_decoder()(input_ids=tokens_BS, use_cache=False).last_hidden_state
    hidden_BSH.square().sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return hidden_BSH.detach(), gradient


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("kind", VARIANTS)
def test_every_variant_is_transformers(kind: str, together: bool) -> None:
    model = VARIANTS[kind]()
    wanted, wanted_gradient = hidden_and_gradient(model)
    with quick_decoder(model, fused_attention, together=together):
        found, gradient = hidden_and_gradient(model)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert (gradient - wanted_gradient).norm() < 1e-5 * wanted_gradient.norm()


def test_what_is_not_known_stays_as_it_is() -> None:
    window = qwen2(use_sliding_window=True, sliding_window=4, max_window_layers=0)
    adapted = qwen2()
    adapted.get_decoder().layers[1].self_attn.o_proj = nn.Sequential(nn.Linear(16, 16))  # as adapters do
    other_attention = qwen2()
    other_attention.set_attn_implementation("eager")
    for model in (window, adapted, other_attention):
        assert not is_known(model.get_decoder())
        with quick_decoder(model, fused_attention, together=False):
            assert "forward" not in vars(model.get_decoder())


def test_one_block_inside_of_another_changes_nothing() -> None:
    model = qwen2()
    with quick_decoder(model, fused_attention, together=False):
        outer = model.get_decoder().forward
        with quick_decoder(model, fused_attention, together=True):
            assert model.get_decoder().forward is outer
        assert model.get_decoder().forward is outer


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("keys_before", [0, 3])
def test_short_attention_is_attention(heads: int, kv_heads: int, keys_before: int) -> None:
    module = nn.Module()
    module.num_key_value_groups = heads // kv_heads  # type: ignore[assignment]
    found, gradients = [], []
    for dtype in (torch.float32, torch.bfloat16):
        q = random(0, 2, heads, 9, 8).requires_grad_()
        k, v = (random(seed, 2, kv_heads, keys_before + 9, 8).requires_grad_() for seed in (1, 2))
        mask = torch.full((9, keys_before + 9), -torch.inf, dtype=dtype).triu(1 + keys_before)
        with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
            given = mask.expand(2, 1, -1, -1) if keys_before else None
            out = short_attention(module, q, k, v, given, 0.3)
        out.float().square().sum().backward()
        found.append(out.detach().float())
        gradients.append([x.grad for x in (q, k, v)])
    torch.testing.assert_close(found[1], found[0], atol=0.03, rtol=0.03)
    for one, other in zip(*gradients, strict=True):
        assert (one - other).norm() < 0.03 * one.norm()


def test_long_rows_go_to_the_usual_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, seen = short.fused_attention, []
    monkeypatch.setattr(
        short, "fused_attention", lambda *a, **k: seen.append(a[1].shape[2]) or usual(*a, **k)
    )
    module = nn.Module()
    module.num_key_value_groups = 1  # type: ignore[assignment]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for length in (600, 100):
            short_attention(module, *(random(s, 1, 2, length, 8) for s in range(3)), None, 0.3)
    assert seen == [600]
