"""SwiGLU, arXiv 2002.05202, that keeps its inputs only."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up."""
    if torch.is_grad_enabled():
        return _SwiGLU.apply(gate, up)  # type: ignore[no-any-return,no-untyped-call]
    return silu(gate).mul_(up)


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
