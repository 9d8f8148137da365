"""One decoder layer: attention and a gated MLP, each after a norm, each added to what came in.

B sequences, S positions, H hidden size, Q query heads, K key-value heads, D head size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from chainforge.models.decoder.projection import Apart, Together
from chainforge.models.decoder.rms_norm import rms_norm
from chainforge.models.decoder.rotary import rotate
from chainforge.models.decoder.swiglu import swiglu

Attend = Callable[..., tuple[Tensor, Any]]  # transformers' interface of attention functions


class Layer:
    """A layer of transformers', computed another way. `together`: see projection.py."""

    def __init__(self, layer: nn.Module, attend: Attend, *, together: bool) -> None:
        project = Together if together else Apart
        self._layer, self._attention, self._attend = layer, layer.self_attn, attend
        self._qkv = project([self._attention.q_proj, self._attention.k_proj, self._attention.v_proj])
        self._gate_up = project([layer.mlp.gate_proj, layer.mlp.up_proj])

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
            x.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for x in self._qkv(normed(layer.input_layernorm, hidden_BSH))
        )
        query, key = rotate(query, cos_B1SD, sin_B1SD), rotate(key, cos_B1SD, sin_B1SD)
        if cache is not None:
            key, value = cache.update(key, value, attention.layer_idx)
        mixed_BSQD, _ = self._attend(attention, query, key, value, mask, scaling=attention.scaling)
        hidden_BSH = hidden_BSH + attention.o_proj(mixed_BSQD.flatten(-2))
        gate, up = self._gate_up(normed(layer.post_attention_layernorm, hidden_BSH))
        return hidden_BSH + layer.mlp.down_proj(swiglu(gate, up))


def normed(norm: nn.Module, hidden_BSH: Tensor) -> Tensor:
    """The norm's output in the type that autocast will want it in."""
    device = hidden_BSH.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_BSH.dtype
    return rms_norm(hidden_BSH, norm.weight, norm.variance_epsilon, dtype)
