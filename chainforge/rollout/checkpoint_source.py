"""A checkpoint that does not learn, as what an engine samples from."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from chainforge.learner.forward_passes import forward_passes, mixed_precision, note_logp
from chainforge.models.adapters import plain_weights
from chainforge.models.batch import Tokens
from chainforge.models.checkpoint import Policy
from chainforge.models.policy_model import PolicyModel

MOST_TOKENS = 1024  # per forward pass


class CheckpointSource:
    """See `Source`. Every process has the whole model."""

    def __init__(self, policy: Policy, precision: str) -> None:
        self._policy = policy
        is_slow = precision == "float16" and policy.device.type == "cpu"  # there it would be emulated
        self._precision = "float32" if is_slow else precision

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """See `Source`."""
        return plain_weights(self._policy.model)

    def adapter(self) -> None:
        """See `Source`."""

    @torch.no_grad()
    def logprobs(self, sequences: Sequence[Tokens], temperature: float = 1.0) -> list[list[float]]:
        """See `Source`."""
        model = PolicyModel(self._policy.model)
        found: list[list[float]] = [[] for _ in sequences]
        with mixed_precision(self._precision, model.device):
            for indices, batch in forward_passes(model, sequences, MOST_TOKENS):
                note_logp(found, sequences, indices, model(batch, temperature).logp_BT)
        return found
