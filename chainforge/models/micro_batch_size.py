"""How many tokens a forward and backward pass takes at once, where the settings leave it to us."""

from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedModel

from chainforge.config.run import RuntimeSettings
from chainforge.models.batches import Tokens, collate
from chainforge.models.logprobs import completion_logprobs, mixed_precision
from chainforge.models.training_pass import training_pass

MOST_ON_CPU = 1024  # tokens; more are not faster
# On every CPU, so that all compute the same sums; what is faster with more of it gains little.
CPU_BYTES = 2**30
SHARE = 0.6  # of the memory for what is kept; the rest is for what comes and goes in the backward pass
FIXED_BYTES = 22  # per parameter: 4 of weight, 4 of gradient, 8 of moments, 4 of reference model, 2 of casts
LEAST = 512

_found: WeakKeyDictionary[PreTrainedModel, int] = WeakKeyDictionary()


def micro_batch_tokens(model: PreTrainedModel, runtime: RuntimeSettings, precision: str) -> int:
    """`runtime.micro_batch_tokens`, or what fits.

    On a GPU that follows from its whole memory, not from what is free of it by chance, so that the same GPU
    computes the same sums again; it is a power of two for the same reason. Anywhere else it is what fits into
    `CPU_BYTES`.
    """
    if runtime.micro_batch_tokens != "auto":
        return runtime.micro_batch_tokens
    if model not in _found:
        checkpointing = runtime.gradient_checkpointing
        per_token = kept_bytes_per_token(model, precision, gradient_checkpointing=checkpointing)
        if model.device.type == "cuda":
            memory = torch.cuda.get_device_properties(model.device).total_memory
            _found[model] = tokens_that_fit(memory - FIXED_BYTES * model.num_parameters(), per_token)
        else:
            _found[model] = min(tokens_that_fit(CPU_BYTES, per_token), MOST_ON_CPU)
    return _found[model]


def tokens_that_fit(free: float, per_token: float) -> int:
    """The power of two whose activations take at most `SHARE` of the free bytes; at least `LEAST`."""
    most = max(LEAST, int(SHARE * free / per_token))
    return 1 << (most.bit_length() - 1)


def kept_bytes_per_token(model: PreTrainedModel, precision: str, *, gradient_checkpointing: bool) -> float:
    """Bytes that a token's forward pass keeps for the backward pass, measured."""
    short, long = 64, 128
    kept = [_kept_bytes(model, length, precision, gradient_checkpointing) for length in (short, long)]
    return (kept[1] - kept[0]) / (long - short)  # weights that are cast are kept once, for any length


def _kept_bytes(model: PreTrainedModel, length: int, precision: str, gradient_checkpointing: bool) -> int:
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}  # a tensor that is held keeps its address to itself

    def note(tensor: Tensor) -> Tensor:
        bare = tensor.detach()  # with its graph it would be a cycle, which nobody collects
        if (address := tensor.untyped_storage().data_ptr()) not in parameters:
            kept[address] = bare
        return bare

    batch = collate([Tokens([0], [0] * (length - 1))], model.device)
    with (
        torch.enable_grad(),
        training_pass(model, gradient_checkpointing=gradient_checkpointing),
        saved_tensors_hooks(note, lambda tensor: tensor),
        mixed_precision(precision, model.device),
    ):
        completion_logprobs(model, batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
