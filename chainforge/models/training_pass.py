"""How forward and backward passes over whole sequences run."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from chainforge.memory import enough_memory
from chainforge.models.decoder.quick import quick_decoder
from chainforge.models.decoder.short_attention import short_attention

LOWER = (
    "lower runtime.micro_batch_tokens, set runtime.gradient_checkpointing to true, or choose a smaller model"
)


@contextmanager
def training_pass(model: PreTrainedModel, *, gradient_checkpointing: bool = False) -> Iterator[None]:
    """Inside, gradients may be computed; a forward pass and its backward pass must be in the same block.

    `gradient_checkpointing`: decoder layers keep their inputs only, and run again in the backward pass.
    """
    with (
        enough_memory("a training pass", LOWER),
        quick_decoder(model, short_attention, together=False, gradient_checkpointing=gradient_checkpointing),
        _checkpointing(model, wanted=gradient_checkpointing),
    ):
        yield


@contextmanager
def _checkpointing(model: PreTrainedModel, *, wanted: bool) -> Iterator[None]:
    """transformers' own, for the decoders it computes: those of layers in training mode; what is inside of
    them stays in evaluation mode."""
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)] if wanted else []
    for layer in layers:
        layer.training = layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            layer.training = layer.gradient_checkpointing = False
