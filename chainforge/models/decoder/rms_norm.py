"""RMSNorm in the precision that the product after it wants, with a backward pass of its own on a CPU.

Source: arXiv 1910.07467, eq. 4.
"""

from typing import Any

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension, computed in float32, as `dtype`."""
    if torch.is_grad_enabled() and x.device.type == "cpu":
        return _RMSNorm.apply(x, weight, eps, dtype)  # type: ignore[no-any-return,no-untyped-call]
    return torch.rms_norm(x, weight.shape, weight, eps).to(dtype)


class _RMSNorm(torch.autograd.Function):
    """PyTorch's, made of single operations on a CPU, keeps two tensors as large as `x` more."""

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
