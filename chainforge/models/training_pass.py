"""How forward and backward passes over whole sequences run: attention for short rows, and memory saved.

B sequences, S their length, L that of their keys (longer where a prompt is computed apart), Q query heads,
K key-value heads, G query heads to each of these, D head size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_layers import GradientCheckpointingLayer

from chainforge.models.allocator import reuse_freed_memory
from chainforge.models.attention import attention_on_cpu

SHORT = "short_rows"
LONGEST = 512  # from about 600 tokens on, PyTorch's fused attention is quicker


@contextmanager
def training_pass(model: PreTrainedModel, *, gradient_checkpointing: bool = False) -> Iterator[None]:
    """Inside, gradients may be computed; both ends of a backward pass belong into the same block.

    `gradient_checkpointing`: decoder layers keep their inputs only, and run again in the backward pass.
    transformers does so for layers in training mode; what is inside of them stays in evaluation mode.
    """
    if model.device.type == "cpu":
        reuse_freed_memory()
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    for layer in layers if gradient_checkpointing else ():
        layer.training = layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)  # type: ignore[assignment]
    try:
        with attention_on_cpu(model, SHORT):
            yield
    finally:
        for layer in layers:
            layer.training = layer.gradient_checkpointing = False


def short_attention(
    module: torch.nn.Module,
    query_BQSD: Tensor,
    key_BKLD: Tensor,
    value_BKLD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention by two batched matrix products, in bfloat16; (attention_BSQD, None).

    On a CPU, PyTorch's fused kernel takes four times as long in bfloat16 where rows are short. Whatever is
    not short and bfloat16 goes there all the same.
    """
    B, Q, S, D = query_BQSD.shape
    K, L = key_BKLD.shape[1:3]
    seen_BSL: Tensor | None = None
    if attention_mask is None and S == L and getattr(module, "is_causal", True):
        seen_BSL = torch.ones(1, S, L, dtype=torch.bool).tril()
    elif attention_mask is not None and attention_mask.dtype == torch.bool:
        seen_BSL = attention_mask[:, 0]
    if seen_BSL is None or L > LONGEST or not torch.is_autocast_enabled("cpu"):
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query_BQSD, key_BKLD, value_BKLD, attention_mask, scaling=scaling, **kwargs
        )
        return found
    scale = D**-0.5 if scaling is None else scaling
    dtype = torch.get_autocast_dtype("cpu")
    query = (query_BQSD * scale).to(dtype).reshape(B * K, Q // K * S, D)  # the heads of a group together
    key, value = (x.to(dtype).reshape(B * K, L, -1) for x in (key_BKLD, value_BKLD))
    scores_BQSL = torch.bmm(query, key.transpose(1, 2)).view(B, Q, S, L)
    scores_BQSL.masked_fill_(~seen_BSL[:, None], -torch.inf)
    attention = torch.bmm(scores_BQSL.view(B * K, Q // K * S, L).softmax(-1), value)
    return attention.view(B, Q, S, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(SHORT, short_attention)
AttentionMaskInterface.register(SHORT, sdpa_mask)
