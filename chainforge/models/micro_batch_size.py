"""How many tokens a forward and backward pass takes at once, where the settings leave it to us."""

from weakref import WeakKeyDictionary

import psutil
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedModel

from chainforge.config.run import RuntimeSettings
from chainforge.errors import ChainForgeError
from chainforge.models.batches import Tokens, collate
from chainforge.models.logprobs import completion_logprobs, distillation_kl, mixed_precision
from chainforge.models.training_pass import training_pass

MOST_ON_CPU = 1024  # tokens; more are not faster
# On every CPU, so that all compute the same sums; what is faster with more of it gains little.
CPU_BYTES = 2**30
SHARE = 0.6  # of the memory for what is kept; the rest is for what comes and goes in the backward pass
FIXED_BYTES = 22  # per parameter: 4 of weight, 4 of gradient, 8 of moments, 4 of reference model, 2 of casts
TEACHER_BYTES = 4  # per parameter of a teacher whose logits are distilled
LEAST = 512

_found: WeakKeyDictionary[PreTrainedModel, dict[bool, int]] = WeakKeyDictionary()


def micro_batch_tokens(
    model: PreTrainedModel,
    runtime: RuntimeSettings,
    precision: str,
    teacher: PreTrainedModel | None = None,
) -> int:
    """`runtime.micro_batch_tokens`, or what fits; with a teacher, beside its logits and the model's own.

    On a GPU that follows from its whole memory, not from what is free of it by chance, so that the same GPU
    computes the same sums again; it is a power of two for the same reason. Anywhere else it is what fits into
    `CPU_BYTES`. Raises ChainForgeError where not even `LEAST` tokens fit into the memory that there is.
    """
    if runtime.micro_batch_tokens != "auto":
        return runtime.micro_batch_tokens
    known = _found.setdefault(model, {})
    if (with_teacher := teacher is not None) not in known:
        checkpointing = runtime.gradient_checkpointing
        per_token = kept_bytes_per_token(
            model, precision, gradient_checkpointing=checkpointing, teacher=teacher
        )
        is_cuda = model.device.type == "cuda"
        memory = (
            torch.cuda.get_device_properties(model.device).total_memory
            if is_cuda
            else psutil.virtual_memory().total + psutil.swap_memory().total
        )
        held = FIXED_BYTES * model.num_parameters() + TEACHER_BYTES * (
            teacher.num_parameters() if teacher else 0
        )
        most = tokens_that_fit(memory - held, per_token)
        if most == 0:
            raise _does_not_fit(model, memory, held + LEAST * per_token / SHARE)
        known[with_teacher] = (
            most if is_cuda else max(LEAST, min(tokens_that_fit(CPU_BYTES, per_token), MOST_ON_CPU))
        )
    return known[with_teacher]


def tokens_that_fit(free: float, per_token: float) -> int:
    """The power of two whose activations take at most `SHARE` of the free bytes; 0 if below `LEAST`."""
    most = int(SHARE * free / per_token)
    return 1 << (most.bit_length() - 1) if most >= LEAST else 0


def _does_not_fit(model: PreTrainedModel, memory: int, needed: float) -> ChainForgeError:
    return ChainForgeError(
        f"training does not fit: {model.num_parameters():,} weights, their gradients and moments, and "
        f"{LEAST} tokens at once need about {needed / 2**30:,.1f} GB; this machine's {model.device.type} has "
        f"{memory / 2**30:,.1f} GB",
        "set runtime.gradient_checkpointing to true, choose a smaller model or a larger machine, or set "
        "runtime.micro_batch_tokens to a number and try",
    )


def kept_bytes_per_token(
    model: PreTrainedModel,
    precision: str,
    *,
    gradient_checkpointing: bool,
    teacher: PreTrainedModel | None = None,
) -> float:
    """Bytes that a token's forward pass keeps for the backward pass, measured."""
    short, long = 64, 128
    kept = [_kept_bytes(model, n, precision, gradient_checkpointing, teacher) for n in (short, long)]
    return (kept[1] - kept[0]) / (long - short)  # weights that are cast are kept once, for any length


def _kept_bytes(
    model: PreTrainedModel,
    length: int,
    precision: str,
    gradient_checkpointing: bool,
    teacher: PreTrainedModel | None,
) -> int:
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
        if teacher:
            distillation_kl(model, teacher, batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
