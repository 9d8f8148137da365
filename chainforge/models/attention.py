"""Attention for the shapes at hand, registered with transformers beside its own kinds.

PyTorch's fused kernel is made for long queries. On a CPU in decoding, with one query per row, it takes twice
the time in bfloat16; over short rows in training, four times. On a GPU it is the best there is. But where
several query heads share a key head, it is there in 16 bits only, on Ampere and later: elsewhere PyTorch
would keep all scores, L numbers per query and head. There each query head gets keys of its own.
B sequences, S queries, L keys, Q query heads, K key-value heads, D head size (that of values may be another);
N = B·K pairs, M = Q/K·S queries of each. Source: https://huggingface.co/docs/transformers/attention_interface
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "chainforge"
AMPERE = (8, 0)
LONGEST = 512  # from about 600 tokens on, PyTorch's fused attention is quicker
OTHER_MATHS = ("softcap", "s_aux", "position_bias", "cache")  # arguments that PyTorch's kernel has to see


def choose_attention(model: PreTrainedModel) -> None:
    """Let a model that uses PyTorch's kernel use this module's attention, where it can.

    One that caps its attention's scores uses its own: PyTorch's kernel leaves that out, some versions of
    transformers without a word.
    """
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")
        return
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    can = all(part._can_set_attn_implementation() for part in parts)  # transformers would warn of others
    if can and model.device.type in ("cpu", "cuda") and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


def attend(
    module: nn.Module,
    query_BQSD: Tensor,
    key_BKLD: Tensor,
    value_BKLD: Tensor,
    mask_B1SL: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """(attention_BSQD, None), for transformers. The mask is True or 0 where a key is seen; None: causal."""
    S, L = query_BQSD.shape[2], key_BKLD.shape[2]
    device = type_of(query_BQSD.device)
    usual = device not in ("cpu", "cuda") or dropout > 0
    usual = usual or any(options.get(name) is not None for name in OTHER_MATHS)
    usual = usual or (mask_B1SL is not None and mask_B1SL.shape[1] > 1)  # a mask for each head
    scale = query_BQSD.shape[-1] ** -0.5 if scaling is None else scaling
    causal = mask_B1SL is None and S == L and options.get("is_causal", getattr(module, "is_causal", True))
    if device == "cuda" and not usual and query_BQSD.shape[1] > key_BKLD.shape[1]:
        if S == 1 and mask_B1SL is not None:
            return attend_in_groups(query_BQSD, key_BKLD, value_BKLD, mask_B1SL, scale), None
        if causal and not has_fused_groups(query_BQSD):
            return attend_repeated(query_BQSD, key_BKLD, value_BKLD, scale), None
    usual = usual or device != "cpu"
    if not usual and S == 1 and mask_B1SL is not None and torch.is_inference_mode_enabled():
        return attend_once(query_BQSD, key_BKLD, value_BKLD, mask_B1SL, scale), None
    if not usual and L <= LONGEST and (causal or mask_B1SL is not None) and torch.is_autocast_enabled("cpu"):
        return attend_in_products(query_BQSD, key_BKLD, value_BKLD, mask_B1SL, scale), None
    attention_BSQD: Tensor = sdpa_attention_forward(
        module, query_BQSD, key_BKLD, value_BKLD, mask_B1SL, scaling=scaling, dropout=dropout, **options
    )[0]
    return attention_BSQD, None


def type_of(device: torch.device) -> str:
    """A function, so that a test can take a CPU for a GPU."""
    return device.type


def attend_once(
    query_BQ1D: Tensor, key_BKLD: Tensor, value_BKLD: Tensor, mask_B11L: Tensor, scaling: float
) -> Tensor:
    """attention_B1QD of one query per row, by two products. Softmax in float32."""
    B, Q, _, D = query_BQ1D.shape
    K = key_BKLD.shape[1]
    query_BKGD = (query_BQ1D * scaling).view(B, K, Q // K, D)
    scores_BKGL = (query_BKGD @ key_BKLD.transpose(-1, -2)).add_(additive(mask_B11L, query_BKGD.dtype))
    share_BKGL = scores_BKGL.softmax(-1, dtype=torch.float32).to(value_BKLD.dtype)
    return (share_BKGL @ value_BKLD).reshape(B, 1, Q, -1)


def attend_in_groups(
    query_BQ1D: Tensor, key_BKLD: Tensor, value_BKLD: Tensor, mask_B11L: Tensor, scaling: float
) -> Tensor:
    """attention_B1QD of one query per row, by PyTorch's kernel. Query heads that share a key head stand as
    queries of one head, so that no key is copied; some versions of transformers copy all for each token."""
    B, Q, _, D = query_BQ1D.shape
    query_BKGD = query_BQ1D.reshape(B, key_BKLD.shape[1], -1, D)
    mixed_BKGD = F.scaled_dot_product_attention(
        query_BKGD, key_BKLD, value_BKLD, attn_mask=mask_B11L, scale=scaling
    )
    return mixed_BKGD.reshape(B, 1, Q, -1)


def attend_repeated(query_BQSD: Tensor, key_BKLD: Tensor, value_BKLD: Tensor, scaling: float) -> Tensor:
    """attention_BSQD, causal, by PyTorch's kernel, with a key head for each query head."""
    groups = query_BQSD.shape[1] // key_BKLD.shape[1]
    key_BQLD, value_BQLD = (x.repeat_interleave(groups, dim=1) for x in (key_BKLD, value_BKLD))
    mixed_BQSD = F.scaled_dot_product_attention(
        query_BQSD, key_BQLD, value_BQLD, is_causal=True, scale=scaling
    )
    return mixed_BQSD.transpose(1, 2).contiguous()


def has_fused_groups(query_BQSD: Tensor) -> bool:
    """Whether CUDA has a kernel for query heads that share a key head, and does not keep all scores."""
    device = query_BQSD.device
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else query_BQSD.dtype
    return dtype.itemsize == 2 and torch.cuda.get_device_capability(device) >= AMPERE


def attend_in_products(
    query_BQSD: Tensor, key_BKLD: Tensor, value_BKLD: Tensor, mask_B1SL: Tensor | None, scaling: float
) -> Tensor:
    """attention_BSQD of short rows in autocast's precision, by batched products of whole score matrices."""
    B, Q, S, D = query_BQSD.shape
    K, L = key_BKLD.shape[1:3]
    dtype = torch.get_autocast_dtype("cpu")
    if mask_B1SL is None:
        mask_B1SL = torch.ones(S, L, dtype=torch.bool).tril().expand(B, 1, S, L)
    query_NMD = (query_BQSD * scaling).to(dtype).reshape(B * K, Q // K * S, D)
    key_NLD, value_NLD = (x.to(dtype).flatten(0, 1) for x in (key_BKLD, value_BKLD))
    mixed_NMD: Tensor = _Products.apply(query_NMD, key_NLD, value_NLD, additive(mask_B1SL, dtype))  # type: ignore[no-untyped-call]
    return mixed_NMD.view(B, Q, S, -1).transpose(1, 2).contiguous()


class _Products(torch.autograd.Function):
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


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a key is seen, -inf where it is not: adding takes a quarter of the time of filling in."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
