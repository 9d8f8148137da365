"""What a forward pass keeps for the backward pass, measured."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from chainforge.learner.forward_passes import mixed_precision
from chainforge.learner.teacher import Teacher
from chainforge.models.batch import Tokens, collate
from chainforge.models.policy_model import PolicyModel

LENGTHS = (64, 128)  # tokens


def kept_bytes_per_token(
    model: PolicyModel,
    precision: str,
    teacher: Teacher | None = None,
    lengths: Sequence[int] = LENGTHS,
) -> float:
    """Bytes per token, from what two sequences of these lengths keep."""
    short, long = lengths
    kept = [_kept_bytes(model, n, precision, teacher) for n in (short, long)]
    return (kept[1] - kept[0]) / (long - short)  # weights that are cast are kept once, for any length


def _kept_bytes(model: PolicyModel, length: int, precision: str, teacher: Teacher | None) -> int:
    parameters = {_place(p) for p in model.parameters()}
    kept: dict[int, Tensor] = {}  # a tensor that is held keeps its place to itself

    def note(tensor: Tensor) -> Tensor:
        bare = tensor.detach()  # with its graph it would be a cycle, which nobody collects
        if (place := _place(tensor)) not in parameters:
            kept[place] = bare
        return bare

    batch = collate([Tokens([0], [0] * (length - 1))], model.device)
    with (
        torch.enable_grad(),
        saved_tensors_hooks(note, lambda tensor: tensor),
        mixed_precision(precision, model.device),
    ):
        found = model(batch, vocabulary=teacher is not None)
        if teacher and found.logp_MV is not None:
            teacher.divergence_from(found.logp_MV, batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _place(tensor: Tensor) -> int:
    """Which memory it lies in; one without data has some in name."""
    return int(tensor.untyped_storage()._cdata)
