"""One decoder layer: attention and a gated MLP, each after a norm, each added to what came in.

B sequences, S positions, H hidden size, Q query heads, K key-value heads, D head size.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from chainforge.models.decoder.attention import Attend
from chainforge.models.decoder.projection import Projection
from chainforge.models.decoder.rms_norm import rms_norm
from chainforge.models.decoder.rotary import rotate
from chainforge.models.decoder.swiglu import swiglu


class Layer:
    """A layer of transformers', computed another way. `together` and `keep`: see projection.py."""

    def __init__(self, layer: Any, attend: Attend, *, together: bool, keep: bool) -> None:
        self._layer, self._attention, self._attend = layer, layer.self_attn, attend
        project = partial(Projection, together=together, keep=keep)
        attention, mlp = layer.self_attn, layer.mlp
        self._qkv = project(attention.q_proj, attention.k_proj, attention.v_proj)
        self._out = project(attention.o_proj)
        self._gate_up = project(mlp.gate_proj, mlp.up_proj)
        self._down = project(mlp.down_proj)
        self._norms_heads = hasattr(attention, "q_norm")  # Qwen3

    def __call__(
        self,
        hidden_BSH: Tensor,
        cos_B1SD: Tensor,
        sin_B1SD: Tensor,
        mask: Tensor | None,
        cache: Cache | None,
    ) -> Tensor:
        """hidden_BSH after this layer."""
        layer, attention = self._layer, self._attention
        query, key, value = (
            x.unflatten(-1, (-1, attention.head_dim))
            for x in self._qkv(normed(layer.input_layernorm, hidden_BSH))
        )
        if self._norms_heads:
            query, key = normed(attention.q_norm, query), normed(attention.k_norm, key)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        query, key = rotate(query, cos_B1SD, sin_B1SD), rotate(key, cos_B1SD, sin_B1SD)
        if cache is not None:
            key, value = cache.update(key, value, attention.layer_idx)
        mixed_BSQD = self._attend(attention, query, key, value, mask, attention.scaling)
        hidden_BSH = hidden_BSH + self._out(mixed_BSQD.flatten(-2))[0]
        gate, up = self._gate_up(normed(layer.post_attention_layernorm, hidden_BSH))
        return hidden_BSH + self._down(swiglu(gate, up))[0]


def normed(norm: Any, hidden_BSH: Tensor) -> Tensor:
    """The norm's output in the type that autocast will want it in."""
    device = hidden_BSH.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_BSH.dtype
    return rms_norm(hidden_BSH, norm.weight, norm.variance_epsilon, dtype)
