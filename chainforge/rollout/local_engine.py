"""Our own sampler as an engine: in this process, on a learner's own weights."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from chainforge.config.sampling import SamplingSettings
from chainforge.learner.forward_passes import CASTS
from chainforge.memory import enough_memory
from chainforge.models.chat import eos_ids
from chainforge.models.checkpoint import Policy
from chainforge.models.precision import settle_precision
from chainforge.rollout.engine import Request, Sampled, Source
from chainforge.rollout.sampler import LOWER, sample
from chainforge.run.step import Step


class LocalEngine:
    """See `Engine`. In 16 bits it samples from a rounded copy: else each token would cast the weights.

    `frozen`: the weights never change, so that the copy is made once, and not for each call. `apart`: the
    learner will have the weights in another form, split or with an adapter; then the copy is made now, and
    `update` fills it.
    """

    def __init__(self, policy: Policy, step: Step, *, frozen: bool = False, apart: bool = False) -> None:
        self._eos_ids, self.rows = eos_ids(policy.model, policy.tokenizer), step.runtime.rollout_rows
        precision = step.settings.precision
        settle_precision(precision, policy.model)
        self._dtype = CASTS.get(precision, policy.model.dtype)
        rounds = self._dtype != policy.model.dtype
        self._copies = rounds and not (frozen or apart)
        self._apart = apart
        self._model = policy.model
        if apart or (rounds and frozen):
            self._model = copy_weights(policy.model, self._dtype)

    def generate(self, requests: Sequence[Request], settings: SamplingSettings) -> list[list[Sampled]]:
        """See `Engine`."""
        model = copy_weights(self._model, self._dtype) if self._copies else self._model
        return sample(model, requests, settings, eos_ids=self._eos_ids, max_rows=self.rows)

    def begin(
        self, requests: Sequence[Request], settings: SamplingSettings
    ) -> Callable[[], list[list[Sampled]]]:
        """See `Engine`."""
        return partial(self.generate, requests, settings)

    @torch.no_grad()
    def update(self, source: Source, version: int) -> None:
        """See `Engine`. Nothing to do where its weights are those that the learner trains."""
        if self._apart:
            own = self._model.state_dict()
            for name, weight in source.weights():
                own[name].copy_(weight)

    def close(self) -> None:
        """Nothing to do."""


@enough_memory("a copy of the weights to sample from", LOWER)
def copy_weights(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """A copy whose weights have this type. Buffers stay as they are: rounded, RoPE would turn far tokens by
    another angle."""
    weights: dict[int, Any] = {
        id(p): torch.nn.Parameter(p.detach().to(dtype, copy=True), requires_grad=False)
        for p in model.parameters()
    }
    return deepcopy(model, weights)
