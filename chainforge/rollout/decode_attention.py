"""Attention of one new token per row over its cache, on a CPU: two matrix products instead of a fused kernel.

B rows, Q query heads, K key-value heads, G query heads to each, L positions in the cache, D head size.
PyTorch's fused kernel is made for long queries. With one query it takes twice the time in bfloat16, where it
converts every key, and a fifth more in float32. On a GPU it is the best there is, and stays.
"""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from chainforge.models.decoder.attention import fused_attention
from chainforge.models.decoder.quick import quick_decoder


def decoding(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Inside, the model computes one token per row in few operations."""
    return quick_decoder(model, decode_attention, together=True)


def decode_attention(
    module: nn.Module,
    query_BQSD: Tensor,
    key_BKLD: Tensor,
    value_BKLD: Tensor,
    mask_B1SL: Tensor | None,
    scaling: float,
) -> Tensor:
    """attention_BSQD. Softmax in float32. Whatever is not one masked query goes the usual way."""
    B, Q, S, D = query_BQSD.shape
    K = key_BKLD.shape[1]
    if S > 1 or mask_B1SL is None:
        return fused_attention(module, query_BQSD, key_BKLD, value_BKLD, mask_B1SL, scaling)
    query_BKGD = (query_BQSD * scaling).view(B, K, Q // K, D)
    scores_BKGL = (query_BKGD @ key_BKLD.transpose(-1, -2)).add_(mask_B1SL)
    share_BKGL = scores_BKGL.softmax(-1, dtype=torch.float32).to(value_BKLD.dtype)
    return (share_BKGL @ value_BKLD).reshape(B, 1, Q, D)
