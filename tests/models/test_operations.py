"""Operations with a backward pass of their own are their formulas, in values and gradients."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from chainforge.models.operations import rms_norm, rotate, swiglu

pytestmark = pytest.mark.slow

Make = Callable[..., Tensor]


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
