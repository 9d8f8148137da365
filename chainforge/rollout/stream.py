"""One completion, token by token, for a person who reads along."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from chainforge.config.sampling import SamplingSettings
from chainforge.memory import enough_memory
from chainforge.models.checkpoint import Policy
from chainforge.rollout.completions import Completions
from chainforge.rollout.decode_batch import DecodeBatch
from chainforge.rollout.engine import Request
from chainforge.rollout.local_engine import LocalEngine
from chainforge.run.step import Step

LOWER = "lower the number of new tokens, or choose a smaller model"


class StreamingEngine(LocalEngine):
    """A `LocalEngine` on weights that stay as they are, which can also give the tokens as they are drawn."""

    def __init__(self, policy: Policy, step: Step) -> None:
        super().__init__(policy, step, frozen=True)

    @torch.inference_mode()
    def stream(self, prompt_ids: Sequence[int], seed: int, settings: SamplingSettings) -> Iterator[int]:
        """The tokens that `generate` draws with this seed, without the EOS token that ends them."""
        request = Request(prompt_ids, [seed])
        drawn = _LastToken([request], settings, self._eos_ids, self._model.device)
        with enough_memory("sampling", LOWER):
            batch = DecodeBatch(self._model, drawn, 1, len(prompt_ids))
            batch.admit([prompt_ids], [[0]])
            while len(batch):
                batch.decode()
                if drawn.last not in self._eos_ids:
                    yield drawn.last


class _LastToken(Completions):
    """Completions of one row that remember the token drawn last."""

    last = -1

    def extend(self, logits_BV: Tensor, number_B: Tensor, taken_B: Tensor) -> tuple[Tensor, Tensor]:
        token_B, stopped_B = super().extend(logits_BV, number_B, taken_B)
        self.last = int(token_B[0])
        return token_B, stopped_B
