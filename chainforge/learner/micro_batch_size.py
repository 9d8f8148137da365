"""How many tokens a forward and backward pass takes at once, where the settings leave it to us."""

import psutil
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from chainforge.algorithms.kl import distillation_kl
from chainforge.config.run import RuntimeSettings
from chainforge.errors import ChainForgeError
from chainforge.learner.forward_passes import mixed_precision
from chainforge.models.batch import Tokens, collate
from chainforge.models.policy_model import PolicyModel

MOST_ON_CPU = 1024  # tokens; more are not faster
# On every CPU, so that all compute the same sums; what is faster with more of it gains little.
CPU_BYTES = 2**30
SHARE = 0.6  # of the memory for what is kept; the rest is for what comes and goes in the backward pass
FIXED_BYTES = 22  # per parameter: 4 of weight, 4 of gradient, 8 of moments, 4 of reference model, 2 of casts
TEACHER_BYTES = 4  # per parameter of a teacher whose logits are distilled
LEAST = 512


def micro_batch_tokens(
    model: PolicyModel, runtime: RuntimeSettings, precision: str, teacher: PolicyModel | None = None
) -> int:
    """`runtime.micro_batch_tokens`, or what fits; with a teacher, beside its logits and the model's own.

    On a GPU that follows from its whole memory, not from what is free of it by chance, so that the same GPU
    computes the same sums again; it is a power of two for the same reason. Anywhere else it is what fits into
    `CPU_BYTES`. Raises ChainForgeError where not even `LEAST` tokens fit into the memory that there is.
    """
    if runtime.micro_batch_tokens != "auto":
        return runtime.micro_batch_tokens
    per_token = kept_bytes_per_token(model, precision, teacher)
    is_cuda = model.device.type == "cuda"
    memory = (
        torch.cuda.get_device_properties(model.device).total_memory
        if is_cuda
        else psutil.virtual_memory().total + psutil.swap_memory().total
    )
    held = FIXED_BYTES * model.model.num_parameters()
    held += TEACHER_BYTES * teacher.model.num_parameters() if teacher else 0
    most = tokens_that_fit(memory - held, per_token)
    if most == 0:
        raise _does_not_fit(model, memory, held + LEAST * per_token / SHARE)
    return most if is_cuda else max(LEAST, min(tokens_that_fit(CPU_BYTES, per_token), MOST_ON_CPU))


def tokens_that_fit(free: float, per_token: float) -> int:
    """The power of two whose activations take at most `SHARE` of the free bytes; 0 if below `LEAST`."""
    most = int(SHARE * free / per_token)
    return 1 << (most.bit_length() - 1) if most >= LEAST else 0


def _does_not_fit(model: PolicyModel, memory: int, needed: float) -> ChainForgeError:
    return ChainForgeError(
        f"training does not fit: {model.model.num_parameters():,} weights, their gradients and moments, and "
        f"{LEAST} tokens at once need about {needed / 2**30:,.1f} GB; this machine's {model.device.type} has "
        f"{memory / 2**30:,.1f} GB",
        "set runtime.gradient_checkpointing to true, choose a smaller model or a larger machine, or set "
        "runtime.micro_batch_tokens to a number and try",
    )


def kept_bytes_per_token(model: PolicyModel, precision: str, teacher: PolicyModel | None = None) -> float:
    """Bytes that a token's forward pass keeps for the backward pass, measured."""
    short, long = 64, 128
    kept = [_kept_bytes(model, n, precision, teacher) for n in (short, long)]
    return (kept[1] - kept[0]) / (long - short)  # weights that are cast are kept once, for any length


def _kept_bytes(model: PolicyModel, length: int, precision: str, teacher: PolicyModel | None) -> int:
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
        saved_tensors_hooks(note, lambda tensor: tensor),
        mixed_precision(precision, model.device),
    ):
        found = model(batch, vocabulary=teacher is not None)
        if teacher and found.logp_MV is not None:
            with torch.no_grad():
                by_teacher = teacher(batch, vocabulary=True)
            distillation_kl(found.logp_MV, by_teacher.logp_MV)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
