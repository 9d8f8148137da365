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
    """See `Engine`."""

    def __init__(self, policy: Policy, step: Step) -> None:
        self._model, self._eos_ids = policy.model, eos_ids(policy.model, policy.tokenizer)
        self._precision, self.rows = step.settings.precision, step.runtime.rollout_rows

    def generate(self, requests: Sequence[Request], settings: SamplingSettings) -> list[list[Sampled]]:
        """See `Engine`. In bfloat16 it rounds a copy: decoding would cast the weights for each token."""
        model = self._model if self._precision == "float32" else rounded(self._model)
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
