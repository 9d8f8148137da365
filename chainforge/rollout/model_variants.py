"""Copies of a model that show within a few tokens what the model itself would show later.

They share its weights where they can.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from transformers import PreTrainedModel

WINDOW = 16  # tokens
WINDOWS = ("sliding_window", "attention_chunk_size", "attention_window_size")  # in configs and in modules
FIXED = "window_size"  # GPT-Neo has made a mask of it already
GROWING = ("dynamic", "longrope")  # kinds of RoPE whose frequencies depend on the length of the context
LOUD = 4.0  # standard deviation of the logits, about


def smallest_window(model: PreTrainedModel) -> int | None:
    """Tokens of context beyond which some layer computes differently; None where no layer does."""
    found = [_size(holder, name) for holder in _holders(model) for name in WINDOWS]
    found += [_rope_limit(module) for module in _growing(model)]
    return min(filter(None, [*found, fixed_window(model)]), default=None)


def fixed_window(model: PreTrainedModel) -> int | None:
    """A window that cannot be narrowed."""
    return _size(model.config, FIXED)


def narrowed(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model that differs in the size of its windows."""
    shared: dict[int, Any] = {id(weight): weight for weight in model.parameters()}
    copy = deepcopy(model, shared)
    for holder in _holders(copy):
        for name in WINDOWS:
            if (_size(holder, name) or 0) > WINDOW:
                setattr(holder, name, WINDOW)
    for rope in _growing(copy):
        if _rope_limit(rope) > WINDOW:
            rope.original_max_seq_len = rope.max_seq_len_cached = WINDOW
            rope.config.max_position_embeddings = WINDOW
            rope.config.rope_parameters["original_max_position_embeddings"] = WINDOW
            if hasattr(rope.config, "original_max_position_embeddings"):  # Phi-3's goes first, before 5.23
                rope.config.original_max_position_embeddings = WINDOW
    return copy


def in_float32(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself where its weights are float32; else a copy."""
    coarse = [t for t in model.state_dict(keep_vars=True).values() if t.is_floating_point()]
    if all(t.dtype == torch.float32 for t in coarse):
        return model
    shared: dict[int, Any] = {}
    for tensor in coarse:
        exact = tensor.detach().float()
        shared[id(tensor)] = torch.nn.Parameter(exact) if isinstance(tensor, torch.nn.Parameter) else exact
    return deepcopy(model, shared)


def louder(model: PreTrainedModel) -> PreTrainedModel:
    """The same architecture with other random weights, so large that every part of it matters."""
    copy = deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    tables = {id(m.weight) for m in (copy.get_input_embeddings(), copy.get_output_embeddings()) if m}
    with torch.no_grad():
        for weight in copy.parameters():
            noise = torch.randn(weight.shape, generator=generator).to(weight)
            if id(weight) in tables:
                weight.copy_(noise * LOUD * weight.shape[-1] ** -0.5)
            elif weight.ndim > 1:
                weight.copy_(noise * weight.shape[-1] ** -0.5)
            else:  # norms and biases
                weight.add_(noise, alpha=0.1)
    return copy


def _growing(model: PreTrainedModel) -> Iterator[Any]:
    """Its rotary embeddings of such a kind."""
    for module in model.modules():
        kind = getattr(module, "rope_type", None)
        if isinstance(kind, str) and kind in GROWING:
            yield module


def _rope_limit(rope: Any) -> int:
    own: int = rope.original_max_seq_len
    return min(own, rope.config.rope_parameters.get("original_max_position_embeddings") or own)


def _holders(model: PreTrainedModel) -> Iterator[Any]:
    """Whatever may hold the size of a window."""
    for module in model.modules():
        yield module
        yield vars(module).get("config")


def _size(holder: Any, name: str) -> int | None:
    size = getattr(holder, name, None)
    return size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None
