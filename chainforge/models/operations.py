"""RMSNorm, rotary positions and SwiGLU that keep their inputs only, each with a backward pass of its own.

PyTorch's, made of single operations, keep a third more per token. Values are computed in float32 and written
in the type that the product after them wants.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension, as `dtype`. arXiv 1910.07467, eq. 4."""
    if torch.is_grad_enabled() and x.device.type == "cpu":
        return _RMSNorm.apply(x, weight, eps, dtype)  # type: ignore[no-any-return,no-untyped-call]
    return torch.rms_norm(x, weight.shape, weight, eps).to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: each pair of components (i, i + D/2) of a head turns by an angle. arXiv 2104.09864.

    `x` is [..., heads, S, D]; `cos` and `sin` of the angles are [..., 1, S, D], both halves alike.
    """
    if torch.is_grad_enabled():
        return _Rotate.apply(x, cos, sin)  # type: ignore[no-any-return,no-untyped-call]
    return _turn(x, cos, sin)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up. arXiv 2002.05202."""
    if torch.is_grad_enabled():
        return _SwiGLU.apply(gate, up)  # type: ignore[no-any-return,no-untyped-call]
    return silu(gate).mul_(up)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        normed: Tensor = (x * scale).mul_(weight).to(dtype)
        return normed

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        grad, unit = upstream[0].float(), x * scale
        grad_weight = (grad * unit).flatten(0, -2).sum(0)
        grad = grad * weight
        along = (grad * unit).mean(-1, keepdim=True)
        return grad.addcmul_(unit, along, value=-1).mul_(scale).to(x.dtype), grad_weight, None, None


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


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        grad_gate = torch.ops.aten.silu_backward(upstream[0] * up, gate)
        return grad_gate, silu(gate).mul_(upstream[0])
