"""What a loop that trains asks for: log-probabilities, an optimizer step, weights. It knows no device."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from chainforge.models.batch import Batch, Tokens
from chainforge.models.policy_model import LogProbs

Sums = dict[str, Tensor]  # that of algorithms/ would make SFT depend on the code of GRPO's losses
# (places of a micro-batch's sequences, what the model says of them, the batch) -> (loss, sums to log). The
# loss is a sum, already divided by what the whole optimizer step has of it: then micro-batches add up. It is
# called in the precision of the forward pass, so that it may ask other models.
Loss = Callable[[Sequence[int], LogProbs, Batch], tuple[Tensor, Sums]]


class Update(NamedTuple):
    """What one optimizer step gave. `sums` are those of its micro-batches, added up."""

    loss: float
    sums: Sums
    grad_norm: float  # before clipping
    learning_rate: float
    logprobs: list[list[float]] | None = None  # of the completions before the step, where asked for


class Learner(Protocol):
    """A policy that learns. Its state is what is trained, and nothing else."""

    tokenizer: PreTrainedTokenizerBase

    @property
    def num_parameters(self) -> int:
        """Distinct weights; tied ones count once."""

    def begin(self, steps: int) -> None:
        """Say how many optimizer steps there will be: the learning rate follows. Once, before the first."""

    def logprobs(self, sequences: Sequence[Tokens], temperature: float = 1.0) -> list[list[float]]:
        """Of the completion tokens of each, in nats under logits / temperature."""

    def reference_logprobs(self, sequences: Sequence[Tokens], temperature: float) -> list[list[float]]:
        """The same by the reference: the policy as it was at the start, or when it was last moved."""

    def move_reference(self) -> None:
        """Make the reference what the policy is now."""

    def step(
        self,
        sequences: Sequence[Tokens],
        loss: Loss,
        temperature: float = 1.0,
        *,
        entropy: bool = False,
        vocabulary: bool = False,
        logprobs: bool = False,
    ) -> Update:
        """One optimizer step. The result does not depend on the size of a micro-batch, but for rounding.

        `entropy` and `vocabulary` say what the loss reads of `LogProbs`; `logprobs`, whether the update tells
        them of every completion. Raises NotFinite for a loss or a
        gradient that is not a number.
        """

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """All weights as a plain model has them, adapters merged."""

    def adapter(self) -> Mapping[str, Tensor] | None:
        """The weights of its adapter by their names in the model; None where all weights are trained."""

    def save(self, folder: Path) -> None:
        """Write a plain Hugging Face folder: weights, config, tokenizer."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...
