"""Rotary positions, arXiv 2104.09864: each pair of components (i, i + D/2) of a head turns by an angle."""

from typing import Any

import torch
from torch import Tensor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` [..., heads, S, D] turned by angles whose cos and sin are [..., 1, S, D], both halves alike."""
    if torch.is_grad_enabled():
        return _Rotate.apply(x, cos, sin)  # type: ignore[no-any-return,no-untyped-call]
    return _turn(x, cos, sin)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _turn(upstream[0], cos, -sin), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    exact, half = x.to(cos.dtype), x.shape[-1] // 2
    out = exact * cos
    out[..., :half].addcmul_(exact[..., half:], sin[..., half:], value=-1)
    out[..., half:].addcmul_(exact[..., :half], sin[..., :half])
    return out.to(x.dtype)
