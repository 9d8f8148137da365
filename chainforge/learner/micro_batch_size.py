"""How a training step's passes are cut, where the settings leave it to us: by what fits into the memory."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from chainforge.config.optimizer import OptimizerSettings
from chainforge.config.run import RuntimeSettings
from chainforge.errors import ChainForgeError
from chainforge.learner.footprint import LOGITS, Activations, Training, copy_bytes, in_gb, sizes, total
from chainforge.learner.fully_sharded import splits_weights
from chainforge.learner.kept_bytes import kept_bytes_per_token
from chainforge.learner.teacher import Teacher
from chainforge.memory import machine_memory
from chainforge.models.head import CHUNK_ELEMENTS, CHUNK_ELEMENTS_ELSEWHERE
from chainforge.models.policy_model import PolicyModel
from chainforge.run.step import Step

MOST_ON_CPU = 1024  # tokens; more are not faster
# On every CPU, so that all compute the same sums; what is faster with more of it gains little.
CPU_BYTES = 2**30
SHARE = 0.6  # of those for what is kept; the rest is for what comes and goes in the backward pass
USABLE = 0.92  # of a GPU; the rest is for CUDA itself, and for gaps between tensors
LEAST = 512
LOWER = (
    "lower runtime.micro_batch_tokens, set runtime.gradient_checkpointing to true, or choose a smaller model "
    "(chainforge memory says what takes how much)"
)


class Passes(NamedTuple):
    """At most `most_tokens` tokens at once, padding counted."""

    checkpointing: bool
    most_tokens: int


def plan_passes(
    model: PreTrainedModel,
    settings: OptimizerSettings,
    step: Step,
    reference: PreTrainedModel | None = None,
    teacher: Teacher | None = None,
    *,
    samples_apart: bool = False,
    longest: Callable[[], int] | None = None,
) -> Passes:
    """What runtime.micro_batch_tokens and runtime.gradient_checkpointing say; where they are auto, what fits.

    That follows from the whole memory of the device, not from what is free of it by chance, so that the same
    machine computes the same sums again; on a GPU it is a power of two for the same reason. On a CPU the size
    is what fits into `CPU_BYTES`. Activations are checkpointed where without it `LEAST` tokens do not fit, or
    not the `longest` sequence, which is never cut.
    `teacher` is distilled: its logits and the model's own are there for each token. `samples_apart`: an
    engine has a copy of the weights beside.
    Raises ChainForgeError where as much does not fit even so, unless the settings have a number.
    """
    precision, runtime = step.settings.precision, step.runtime
    if runtime.micro_batch_tokens != "auto" and runtime.gradient_checkpointing != "auto":
        return Passes(runtime.gradient_checkpointing, runtime.micro_batch_tokens)  # nothing to measure
    training = Training(
        sizes(model),
        precision,
        settings,
        sizes(reference) if reference else None,
        sizes(teacher.model.model) if teacher else None,
        step.world.size if splits_weights(step) else 1,
    )
    memory, wanted = usable_memory(model.device, step.world.local_size), runtime.micro_batch_tokens
    needs_room = logits_bytes(model.device.type)
    needs_room += copy_bytes(training.model, precision) if samples_apart else 0
    plain = kept_bytes_per_token(PolicyModel(model), precision)
    vocabulary = model.get_output_embeddings().weight.shape[0] if teacher else 0
    least = fewest_tokens(wanted, longest() if longest else 0)
    for checkpointing in choices(runtime):
        measured = PolicyModel(model, gradient_checkpointing=checkpointing)
        kept = kept_bytes_per_token(measured, precision, teacher) if checkpointing or teacher else plain
        activations = Activations(kept, plain / training.model.layers, vocabulary)
        held = total(training.held(checkpointing=checkpointing), needs_room)
        fitting = (memory - held) / activations.at_peak(checkpointing=checkpointing)
        if fitting >= least:
            break
    if wanted != "auto":
        return Passes(checkpointing, wanted)
    if fitting < least:
        needed = held + least * activations.at_peak(checkpointing=checkpointing)
        raise _does_not_fit(model, training, needed, memory, checkpointing, least)
    if model.device.type == "cpu":
        return Passes(checkpointing, max(LEAST, min(power_of_two(SHARE * CPU_BYTES / kept), MOST_ON_CPU)))
    return Passes(checkpointing, power_of_two(fitting))


def fewest_tokens(wanted: int | str, longest: int) -> int:
    """Of a pass: `runtime.micro_batch_tokens`, or `LEAST` where that is auto; but no sequence is cut."""
    return max(LEAST if isinstance(wanted, str) else wanted, longest)


def choices(runtime: RuntimeSettings) -> tuple[bool, ...]:
    """Whether to checkpoint, what is quicker first."""
    wanted = runtime.gradient_checkpointing
    return (False, True) if wanted == "auto" else (wanted,)


def _does_not_fit(
    model: PreTrainedModel,
    training: Training,
    needed: float,
    memory: float,
    checkpointing: bool,
    least: int,
) -> ChainForgeError:
    tokens = f"{least} tokens at once" if least == LEAST else f"the longest sequence, of {least} tokens,"
    shorter = ["lower max_new_tokens, or max_tokens of SFT"] if least > LEAST else []
    return ChainForgeError(
        f"training does not fit: {training.model.all:,} weights, what goes with them, and {tokens} "
        f"need about {in_gb(needed)}; training can have {in_gb(memory)} of this {model.device.type}",
        f"{'; or '.join([*shorter, *training.remedies(checkpointing=checkpointing)])}; or choose a smaller "
        "model or a "
        "larger machine; or set runtime.micro_batch_tokens to a number and try",
    )


def power_of_two(number: float) -> int:
    """The largest one that is not above it; 0 where that would be a fraction."""
    return 1 << (int(number).bit_length() - 1) if number >= 1 else 0


def usable_memory(device: torch.device, processes: int) -> float:
    """Bytes of the device that training can have in one of the step's processes on this machine: each has a
    GPU of its own, and a share of what there is else."""
    if device.type == "cuda":
        return USABLE * torch.cuda.get_device_properties(device).total_memory
    return machine_memory() / processes


def logits_bytes(device_type: str) -> float:
    """Of the head: it makes logits in chunks of a size that does not depend on the model."""
    return LOGITS * CHUNK_ELEMENTS.get(device_type, CHUNK_ELEMENTS_ELSEWHERE)
