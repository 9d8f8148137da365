"""What a loop that samples asks for: token ids in, completions with their log-probabilities out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from chainforge.config.sampling import SamplingSettings
from chainforge.records import Finish


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt as token ids, and one seed per completion wanted."""

    prompt_ids: Sequence[int]
    seeds: Sequence[int]


@dataclass(frozen=True, slots=True)
class Sampled:
    """One completion: token ids with the EOS token that ended it, if any; log-probabilities; how it ended."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]  # in nats under logits / temperature, before top-k and top-p
    finish: Finish


class Engine(Protocol):
    """A place where completions are sampled."""

    rows: int  # completions that it decodes at once

    def generate(self, requests: Sequence[Request], settings: SamplingSettings) -> list[list[Sampled]]:
        """One list of completions per request, in the order of its seeds."""

    def update(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Sample from these weights from now on. `version` counts them up."""

    def close(self) -> None:
        """Give back what it holds."""
