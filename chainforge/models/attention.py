"""Another attention for some passes of a model, by transformers' own interface."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel


@contextmanager
def attention_on_cpu(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Inside, a model on a CPU has the attention of this name, if it has PyTorch's otherwise."""
    usual = model.config._attn_implementation
    replaces = usual == "sdpa" and model.device.type == "cpu"
    if replaces:
        model.set_attn_implementation(name)
    try:
        yield
    finally:
        if replaces:
            model.set_attn_implementation(usual)
