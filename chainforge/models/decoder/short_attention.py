"""Attention over short rows in bfloat16 on a CPU: batched products of whole score matrices.

B sequences, S their length, L that of their keys (longer where a prompt is computed apart), Q query heads,
K key-value heads, D head size; N = B·K pairs, M = Q/K·S queries of each.
PyTorch's fused kernel for CPUs takes four times as long here.
"""

from typing import Any

import torch
from torch import Tensor, nn

from chainforge.models.decoder.attention import additive, fused_attention

LONGEST = 512  # from about 600 tokens on, PyTorch's fused attention is quicker


def short_attention(
    module: nn.Module,
    query_BQSD: Tensor,
    key_BKLD: Tensor,
    value_BKLD: Tensor,
    mask_B1SL: Tensor | None,
    scaling: float,
) -> Tensor:
    """attention_BSQD; no mask means causal. What is long or float32 goes the usual way."""
    B, Q, S, D = query_BQSD.shape
    K, L = key_BKLD.shape[1:3]
    if L > LONGEST or not torch.is_autocast_enabled("cpu"):
        return fused_attention(module, query_BQSD, key_BKLD, value_BKLD, mask_B1SL, scaling)
    dtype = torch.get_autocast_dtype("cpu")
    if mask_B1SL is None:
        mask_B1SL = additive(torch.ones(S, L, dtype=torch.bool).tril(), dtype).expand(B, 1, S, L)
    query_NMD = (query_BQSD * scaling).to(dtype).reshape(B * K, Q // K * S, D)
    key_NLD, value_NLD = (x.to(dtype).reshape(B * K, L, D) for x in (key_BKLD, value_BKLD))
    mixed_NMD: Tensor = _Attention.apply(query_NMD, key_NLD, value_NLD, mask_B1SL)  # type: ignore[no-untyped-call]
    return mixed_NMD.view(B, Q, S, D).transpose(1, 2).contiguous()


class _Attention(torch.autograd.Function):
    """Softmax is computed in float32 and kept as bfloat16."""

    @staticmethod
    def forward(ctx: Any, query_NMD: Tensor, key_NLD: Tensor, value_NLD: Tensor, mask_B1SL: Tensor) -> Tensor:
        scores_NML = torch.bmm(query_NMD, key_NLD.transpose(1, 2))
        B, _, S, L = mask_B1SL.shape
        scores_NML.view(B, -1, S, L).add_(mask_B1SL)
        share_NML = scores_NML.float().softmax(-1).to(query_NMD.dtype)
        ctx.save_for_backward(query_NMD, key_NLD, value_NLD, share_NML)
        return torch.bmm(share_NML, value_NLD)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        query_NMD, key_NLD, value_NLD, share_NML = ctx.saved_tensors
        grad_NMD = upstream[0]
        grad_share_NML = torch.bmm(grad_NMD, value_NLD.transpose(1, 2))
        grad_scores_NML = torch._softmax_backward_data(grad_share_NML, share_NML, -1, share_NML.dtype)
        return (
            torch.bmm(grad_scores_NML, key_NLD),
            torch.bmm(grad_scores_NML.transpose(1, 2), query_NMD),
            torch.bmm(share_NML.transpose(1, 2), grad_NMD),
            None,
        )
