"""A model whose distribution a student learns, token by token."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from chainforge.algorithms.kl import DIVERGENCES, forward_kl
from chainforge.config.distill import DistillSettings
from chainforge.errors import ChainForgeError
from chainforge.models.batch import Batch
from chainforge.models.checkpoint import Policy, load_policy
from chainforge.models.policy_model import PolicyModel


class Teacher(NamedTuple):
    """It is asked about the batches that the student computes, and gets no gradient."""

    model: PolicyModel
    vocabulary: int
    """Tokens that both know: the first of each one's logits."""
    divergence: Callable[[Tensor, Tensor], Tensor] = forward_kl
    """Of DIVERGENCES in algorithms/kl.py."""
    weight: float = 1.0
    """Its share of the loss on examples; the rest is cross-entropy."""

    def divergence_from(self, logp_student_MV: Tensor, batch: Batch) -> Tensor:
        """In nats, summed over the completion tokens of the batch."""
        with torch.no_grad():
            logp_MV = self.model(batch, vocabulary=True).logp_MV
        return self.divergence(self._known(logp_student_MV), self._known(logp_MV))

    def _known(self, logp_MV: Tensor) -> Tensor:
        """The distribution over the tokens that both know."""
        if logp_MV.shape[-1] == self.vocabulary:
            return logp_MV
        return logp_MV[:, : self.vocabulary].log_softmax(-1)


def load_teacher(settings: DistillSettings, student: Policy, device: torch.device) -> Teacher | None:
    """The teacher, where the settings have its logits read."""
    if not (settings.teacher and settings.asks_teacher):
        return None
    policy = load_policy(settings.teacher, device)
    known = shared_vocabulary(student, policy)
    return Teacher(
        PolicyModel(policy.model), known, DIVERGENCES[settings.divergence], settings.logit_kd_weight
    )


def shared_vocabulary(student: Policy, teacher: Policy) -> int:
    """How many tokens both have logits for. Models of one family pad theirs to different sizes.

    Raises ChainForgeError unless every token id means the same to both.
    """
    ours, theirs = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    rows = [p.model.get_output_embeddings().weight.shape[0] for p in (student, teacher)]
    if ours != theirs:
        raise ChainForgeError(
            f"teacher and student do not share a vocabulary ({len(theirs)} and {len(ours)} tokens, "
            f"{len(ours.items() ^ theirs.items())} of them differ)",
            "set logit_kd_weight to 0 and on_policy to null (distill by samples), or give the student its "
            "teacher's tokenizer",
        )
    return int(min(rows))
