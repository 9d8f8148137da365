"""What a loop that samples asks for: token ids in, completions with their log-probabilities out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from chainforge.config.sampling import SamplingSettings
from chainforge.models.batch import Tokens
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
    logprobs: tuple[float, ...]  # in nats under logits / temperature, before top-k and top-p; vLLM's: after
    finish: Finish


class Source(Protocol):
    """A policy to sample from: a `Learner`, or a checkpoint as it was loaded. All processes call it."""

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """All weights as a plain model has them, adapters merged."""

    def adapter(self) -> Mapping[str, Tensor] | None:
        """The weights of the adapter by their names in the model; None where all weights are trained."""

    def logprobs(self, sequences: Sequence[Tokens], temperature: float = 1.0) -> list[list[float]]:
        """Of the completion tokens of each, in nats under logits / temperature."""


class Engine(Protocol):
    """A place where completions are sampled."""

    rows: int  # completions that it decodes at once

    def generate(self, requests: Sequence[Request], settings: SamplingSettings) -> list[list[Sampled]]:
        """One list of completions per request, in the order of its seeds."""

    def begin(
        self, requests: Sequence[Request], settings: SamplingSettings
    ) -> Callable[[], list[list[Sampled]]]:
        """Start to sample. What it returns waits, and gives what `generate` would. Where an engine is on the
        learner's device, nothing is sampled before that."""

    def update(self, source: Source, version: int) -> None:
        """Sample from what `source` is now. `version` counts up."""

    def close(self) -> None:
        """Give back what it holds."""
