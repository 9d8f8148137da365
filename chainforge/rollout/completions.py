"""The completions of a call to the sampler as they grow: tables of what was drawn and what decides it.

N completions, T tokens of the longest, B rows being decoded, V vocabulary.
"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from chainforge.config.sampling import SamplingSettings
from chainforge.records import Finish
from chainforge.rollout.draw import draw, uniform_table
from chainforge.rollout.engine import Request, Sampled


class Completions:
    """A row of tokens and log-probabilities per completion. Row `nobody` is for rows that decode none."""

    def __init__(
        self,
        requests: Sequence[Request],
        settings: SamplingSettings,
        eos_ids: Collection[int],
        device: torch.device,
    ) -> None:
        seeds = [seed for request in requests for seed in request.seeds]
        self.nobody, self.limit = len(seeds), settings.max_new_tokens
        self._requests, self._settings = requests, settings
        self._uniform_NT = uniform_table([*seeds, 0], self.limit, device)
        self._tokens_NT = torch.zeros(len(seeds) + 1, self.limit, dtype=torch.long, device=device)
        self._logp_NT = torch.zeros(len(seeds) + 1, self.limit, device=device)
        self._eos_E = torch.tensor(list(eos_ids), dtype=torch.long, device=device)

    def extend(self, logits_BV: Tensor, number_B: Tensor, taken_B: Tensor) -> tuple[Tensor, Tensor]:
        """(token_B, stopped_B): draw token number `taken_B` of completion `number_B`; whether it is an EOS.

        The logits are used up. What is drawn after an EOS does not count. Nothing waits for the device.
        """
        where, settings = self._uniform_NT.device, self._settings
        token_B, logp_B = draw(
            logits_BV,
            self._uniform_NT[number_B.to(where), taken_B.to(where)],
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
        )
        self._tokens_NT[number_B, taken_B], self._logp_NT[number_B, taken_B] = token_B, logp_B
        return token_B, (token_B[:, None] == self._eos_E).any(-1)

    def collect(self) -> list[list[Sampled]]:
        """One list per request, in the order of its seeds: each up to its first EOS, or to the limit."""
        is_eos_NT = torch.isin(self._tokens_NT, self._eos_E)
        stopped_N = is_eos_NT.any(-1)
        length_N = torch.where(stopped_N, is_eos_NT.int().argmax(-1) + 1, self.limit)
        columns = (self._tokens_NT, self._logp_NT, length_N, stopped_N)
        rows = zip(*(each.tolist() for each in columns), strict=True)
        return [[_sampled(*next(rows)) for _ in request.seeds] for request in self._requests]


def _sampled(tokens: list[int], logprobs: list[float], length: int, stopped: bool) -> Sampled:
    finish: Finish = "stop" if stopped else "length"
    return Sampled(tuple(tokens[:length]), tuple(logprobs[:length]), finish)
