"""Attention of one new token per row over its cache, on a CPU: two matrix products instead of a fused kernel.

B rows, Q query heads, K key-value heads, G query heads to each, L positions in the cache, D head size.
PyTorch's fused kernel is made for long queries. With one query it takes twice the time in bfloat16, where it
converts every key, and a fifth more in float32. On a GPU it is the best there is, and stays.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from chainforge.models.attention import attention_on_cpu

DECODE = "decode"


def decoding(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Inside, the model's attention is the one of this file, where it pays."""
    return attention_on_cpu(model, DECODE)


def decode_attention(
    module: torch.nn.Module,
    query_BQSD: Tensor,
    key_BKLD: Tensor,
    value_BKLD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """(attention_BSQD, None). Softmax in float32. Whatever is not one masked query goes the usual way."""
    B, Q, S, D = query_BQSD.shape
    K = key_BKLD.shape[1]
    if S > 1 or attention_mask is None:
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query_BQSD, key_BKLD, value_BKLD, attention_mask, scaling=scaling, **kwargs
        )
        return found
    query_BKGD = (query_BQSD * (D**-0.5 if scaling is None else scaling)).view(B, K, Q // K, D)
    scores_BKGL = (query_BKGD @ key_BKLD.transpose(-1, -2)).float().masked_fill_(~attention_mask, -torch.inf)
    attention_BKGD = scores_BKGL.softmax(-1).to(value_BKLD.dtype) @ value_BKLD
    return attention_BKGD.reshape(B, 1, Q, D), None


AttentionInterface.register(DECODE, decode_attention)
AttentionMaskInterface.register(DECODE, sdpa_mask)
