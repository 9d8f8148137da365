"""Swap a model's decoder for the one of this folder, where its architecture is known.

B sequences, S positions, L keys.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding
from torch.utils.checkpoint import checkpoint
from transformers import Cache, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaModel
from transformers.models.qwen2.modeling_qwen2 import Qwen2Model
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

from chainforge.models.allocator import reuse_freed_memory
from chainforge.models.decoder.attention import Attend, fused_attention
from chainforge.models.decoder.layer import Layer
from chainforge.models.decoder.rms_norm import rms_norm
from chainforge.models.head import LARGE

KNOWN = (LlamaModel, Qwen2Model, Qwen3Model)
LINEAR = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


@contextmanager
def quick_decoder(
    model: PreTrainedModel, attend_on_cpu: Attend, *, together: bool, gradient_checkpointing: bool = False
) -> Iterator[None]:
    """Inside, the decoder of a known model takes fewer operations; any other stays as it is.

    On a CPU memory is used again, and attention is the one given; elsewhere PyTorch's kernels are the best.
    """
    decoder: Any = model.get_decoder()
    attend: Attend = fused_attention
    if model.device.type == "cpu":
        reuse_freed_memory()
        attend = attend_on_cpu
    swaps = is_known(decoder) and "forward" not in vars(decoder)
    if swaps:
        decoder.forward = Quick(
            decoder, attend, together=together, gradient_checkpointing=gradient_checkpointing
        )
    try:
        yield
    finally:
        if swaps:
            del decoder.forward


def is_known(decoder: Any) -> bool:
    """Whether it is one of those, whole and without adapters, with full attention by PyTorch's kernels."""
    return (
        type(decoder) in KNOWN
        and decoder.config._attn_implementation == "sdpa"
        and decoder.config.hidden_act == "silu"
        and "sliding_attention" not in (getattr(decoder.config, "layer_types", None) or ())
        and all(type(layer.get_submodule(name)) is nn.Linear for layer in decoder.layers for name in LINEAR)
    )


class Output(NamedTuple):
    """As much of transformers' output as ChainForge reads."""

    last_hidden_state: Tensor


class Quick:
    """The forward pass of a decoder; takes the arguments of transformers' that ChainForge uses."""

    def __init__(self, decoder: Any, attend: Attend, *, together: bool, gradient_checkpointing: bool) -> None:
        self._decoder = decoder
        # The head's gradient of the same weights is as large as the vocabulary: a few rows are added to it.
        weight, tied = decoder.embed_tokens.weight, decoder.config.tie_word_embeddings
        self._sparse = tied and weight.device.type == "cpu" and weight.numel() >= LARGE
        keep = not gradient_checkpointing
        layers = [Layer(layer, attend, together=together, keep=keep) for layer in decoder.layers]
        self._layers: list[Callable[..., Tensor]] = (
            [partial(checkpoint, layer, use_reentrant=False) for layer in layers]
            if gradient_checkpointing
            else [*layers]
        )

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
    ) -> Output:
        """`attention_mask` is None where attention is causal, else what is added to scores, [B, 1, S, L]."""
        decoder = self._decoder
        table = decoder.embed_tokens
        hidden_BSH = embedding(input_ids, table.weight, table.padding_idx, sparse=self._sparse)
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        cos_BSD, sin_BSD = decoder.rotary_emb(hidden_BSH, position_ids)
        cos_B1SD, sin_B1SD = cos_BSD.unsqueeze(1), sin_BSD.unsqueeze(1)
        for layer in self._layers:
            hidden_BSH = layer(hidden_BSH, cos_B1SD, sin_B1SD, attention_mask, past_key_values)
        norm = decoder.norm
        hidden_BSH = rms_norm(hidden_BSH, norm.weight, norm.variance_epsilon, hidden_BSH.dtype)
        return Output(hidden_BSH)
