"""The decoder of a model: Llama, Qwen2 and Qwen3 in fewer operations, any other as transformers computes it.

The weights and modules are transformers' own, and so are the results. B sequences, S positions, L keys,
H hidden size, Q query heads, K key-value heads, D head size.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear
from torch.utils.checkpoint import checkpoint
from transformers import Cache, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2Model
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3Model

from chainforge.models.attention import NAME, attend
from chainforge.models.masks import Masks
from chainforge.models.operations import rms_norm, rotate, swiglu

DECODERS = (LlamaModel, Qwen2Model, Qwen3Model)
LAYERS = (LlamaDecoderLayer, Qwen2DecoderLayer, Qwen3DecoderLayer)


def hidden_states(
    model: PreTrainedModel,
    ids_BS: Tensor,
    masks: Masks | None = None,
    position_BS: Tensor | None = None,
    cache: Cache | None = None,
    *,
    merged: "Sequence[Merged] | None" = None,
    sparse: bool = False,
    checkpointing: bool = False,
    routed: list[Tensor] | None = None,
) -> Tensor:
    """hidden_BSH, the last hidden states. No mask means causal; else 0 or True where a key is seen.

    `merged`: see `merge`. `sparse`: the input embedding's gradient has the rows of these tokens alone.
    `checkpointing`: layers keep their inputs only, and run again in the backward pass.
    `routed`: gets the logits of each layer's router, for models with experts.
    """
    decoder: Any = model.get_decoder()
    if not is_known(decoder):
        given: dict[str, Any] = {
            "attention_mask": masks,
            "position_ids": position_BS,
            "past_key_values": cache,
        }
        given["output_router_logits"] = None if routed is None else True
        with_values = {name: value for name, value in given.items() if value is not None}
        output = decoder(input_ids=ids_BS, use_cache=cache is not None, **with_values)
        if routed is not None:
            routed.extend(output.router_logits)
        by_transformers: Tensor = output.last_hidden_state
        return by_transformers
    assert masks is None or isinstance(masks, Tensor)
    table = decoder.embed_tokens
    hidden_BSH = embedding(ids_BS, table.weight, table.padding_idx, sparse=sparse)
    if position_BS is None:
        position_BS = torch.arange(ids_BS.shape[1], device=ids_BS.device)[None]
    cos_B1SD, sin_B1SD = (x.unsqueeze(1) for x in decoder.rotary_emb(hidden_BSH, position_BS))
    for number, layer in enumerate(decoder.layers):
        run = partial(run_layer, layer, merged[number] if merged else None)
        given_BSH = (hidden_BSH, cos_B1SD, sin_B1SD, masks, cache)
        hidden_BSH = checkpoint(run, *given_BSH, use_reentrant=False) if checkpointing else run(*given_BSH)
    norm = decoder.norm
    return rms_norm(hidden_BSH, norm.weight, norm.variance_epsilon, hidden_BSH.dtype)


def is_known(decoder: Any) -> bool:
    """Whether it is one of those, of plain layers, with full attention by our or PyTorch's kernels."""
    config = decoder.config
    return (
        type(decoder) in DECODERS
        and config._attn_implementation in (NAME, "sdpa")
        and config.hidden_act == "silu"
        and "sliding_attention" not in (getattr(config, "layer_types", None) or ())
        and all(type(layer) in LAYERS for layer in decoder.layers)
    )


class Merged(NamedTuple):
    """A layer's linear maps of one input as one: (weight, bias) of queries, keys, values; of gate, up."""

    qkv: tuple[Tensor, Tensor | None]
    sizes: list[int]  # of queries, keys, values
    gate_up: tuple[Tensor, Tensor | None]


def merge(model: PreTrainedModel) -> list[Merged] | None:
    """A copy of those weights for each layer: quicker where there are few rows. None where it cannot be."""
    decoder: Any = model.get_decoder()
    if not is_known(decoder):
        return None
    groups = [
        (
            (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
            (layer.mlp.gate_proj, layer.mlp.up_proj),
        )
        for layer in decoder.layers
    ]
    if any(type(each) is not nn.Linear for pair in groups for group in pair for each in group):
        return None  # an adapter or quantised weights: its modules know how
    return [
        Merged(_joined(qkv), [each.out_features for each in qkv], _joined(gate_up)) for qkv, gate_up in groups
    ]


def _joined(linears: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    biases: list[Tensor] = [each.bias for each in linears if each.bias is not None]
    weights: list[Tensor] = [each.weight for each in linears]
    return torch.cat(weights), torch.cat(biases) if biases else None


def run_layer(
    layer: Any,
    merged: Merged | None,
    hidden_BSH: Tensor,
    cos_B1SD: Tensor,
    sin_B1SD: Tensor,
    mask_B1SL: Tensor | None,
    cache: Cache | None,
) -> Tensor:
    """hidden_BSH after a layer: attention and a gated MLP, each after a norm, each added to what came in."""
    attention, mlp = layer.self_attn, layer.mlp
    normed_BSH = _normed(layer.input_layernorm, hidden_BSH)
    if merged:
        qkv: Sequence[Tensor] = linear(normed_BSH, *merged.qkv).split(merged.sizes, -1)
    else:
        qkv = [each(normed_BSH) for each in (attention.q_proj, attention.k_proj, attention.v_proj)]
    query, key, value = (x.unflatten(-1, (-1, attention.head_dim)) for x in qkv)
    if isinstance(layer, Qwen3DecoderLayer):
        query, key = _normed(attention.q_norm, query), _normed(attention.k_norm, key)
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    query, key = rotate(query, cos_B1SD, sin_B1SD), rotate(key, cos_B1SD, sin_B1SD)
    if cache is not None:
        key, value = cache.update(key, value, attention.layer_idx)
    mixed_BSQD, _ = attend(attention, query, key, value, mask_B1SL, attention.scaling)
    hidden_BSH = hidden_BSH + attention.o_proj(mixed_BSQD.flatten(-2))
    normed_BSH = _normed(layer.post_attention_layernorm, hidden_BSH)
    if merged:
        gate, up = linear(normed_BSH, *merged.gate_up).chunk(2, -1)
    else:
        gate, up = mlp.gate_proj(normed_BSH), mlp.up_proj(normed_BSH)
    out_BSH: Tensor = hidden_BSH + mlp.down_proj(swiglu(gate, up))
    return out_BSH


def _normed(norm: Any, hidden_BSH: Tensor) -> Tensor:
    """The norm's output in the type that autocast will want it in."""
    device = hidden_BSH.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_BSH.dtype
    return rms_norm(hidden_BSH, norm.weight, norm.variance_epsilon, dtype)
