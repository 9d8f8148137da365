"""Our own sampler as an engine: in this process, on a learner's own weights."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from chainforge.config.sampling import SamplingSettings
from chainforge.models.chat import eos_ids
from chainforge.models.checkpoint import Policy
from chainforge.rollout.engine import Request, Sampled
from chainforge.rollout.sampler import sample
from chainforge.run.step import Step


class LocalEngine:
    """See `Engine`. In bfloat16 it samples from a rounded copy: else each token would cast the weights.

    `frozen`: the weights never change, so that the copy is made once, and not for each call.
    """

    def __init__(self, policy: Policy, step: Step, *, frozen: bool = False) -> None:
        self._eos_ids, self.rows = eos_ids(policy.model, policy.tokenizer), step.runtime.rollout_rows
        coarse = step.settings.precision == "bfloat16"
        self._model = rounded(policy.model) if coarse and frozen else policy.model
        self._rounds = coarse and not frozen

    def generate(self, requests: Sequence[Request], settings: SamplingSettings) -> list[list[Sampled]]:
        """See `Engine`."""
        model = rounded(self._model) if self._rounds else self._model
        return sample(model, requests, settings, eos_ids=self._eos_ids, max_rows=self.rows)

    def update(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Nothing to do: its weights are those that the learner trains."""

    def close(self) -> None:
        """Nothing to do."""


def rounded(model: PreTrainedModel) -> PreTrainedModel:
    """A copy in bfloat16. Buffers stay as they are: rounded, RoPE would turn far tokens by another angle."""
    weights: dict[int, Any] = {
        id(p): torch.nn.Parameter(p.detach().bfloat16(), requires_grad=False) for p in model.parameters()
    }
    return deepcopy(model, weights)
