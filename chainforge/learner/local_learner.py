"""A learner on one device that has all the weights."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chainforge.config.optimizer import OptimizerSettings
from chainforge.learner.forward_passes import forward_passes, full_precision, mixed_precision
from chainforge.learner.learner import Loss, Sums, Update
from chainforge.learner.micro_batch_size import micro_batch_tokens
from chainforge.learner.optimizer import NotFinite, ScheduledOptimizer
from chainforge.memory import enough_memory
from chainforge.models.batch import Tokens
from chainforge.models.checkpoint import Policy, save_policy
from chainforge.models.policy_model import PolicyModel
from chainforge.run.step import Step

LARGE = 2**20  # elements of the head's weight from which on a second gradient of it is worth avoiding
LOWER = (
    "lower runtime.micro_batch_tokens, set runtime.gradient_checkpointing to true, or choose a smaller model"
)


class LocalLearner:
    """See `Learner`. `teacher` is a model that losses ask about the same micro-batches: it needs room."""

    def __init__(
        self,
        policy: Policy,
        settings: OptimizerSettings,
        step: Step,
        *,
        reference: Policy | None = None,
        teacher: PolicyModel | None = None,
    ) -> None:
        self.tokenizer, self.num_parameters = policy.tokenizer, policy.num_parameters
        self._policy, self._settings = policy, settings
        self._precision, self._checkpointing = step.settings.precision, step.runtime.gradient_checkpointing
        self._model = PolicyModel(policy.model, gradient_checkpointing=self._checkpointing)
        self._reference = PolicyModel(reference.model) if reference else None
        self._reference_moved = False
        self._most_tokens = micro_batch_tokens(self._model, step.runtime, self._precision, teacher)
        self._optimizer: ScheduledOptimizer | None = None

    def begin(self, steps: int) -> None:
        self._optimizer = ScheduledOptimizer(self._policy.model, self._settings, steps)

    def logprobs(self, sequences: Sequence[Tokens], temperature: float = 1.0) -> list[list[float]]:
        return self._logprobs(self._model, sequences, temperature)

    def reference_logprobs(self, sequences: Sequence[Tokens], temperature: float) -> list[list[float]]:
        assert self._reference is not None
        return self._logprobs(self._reference, sequences, temperature)

    def move_reference(self) -> None:
        assert self._reference is not None
        self._reference.load_state_dict(self._model.state_dict())
        self._reference_moved = True

    @torch.no_grad()
    def _logprobs(
        self, model: PolicyModel, sequences: Sequence[Tokens], temperature: float
    ) -> list[list[float]]:
        found: list[list[float]] = [[] for _ in sequences]
        with enough_memory("a forward pass", LOWER), mixed_precision(self._precision, model.device):
            for indices, batch in forward_passes(model, sequences, self._most_tokens):
                for index, logp_T in zip(indices, model(batch, temperature).logp_BT.tolist(), strict=True):
                    found[index] = logp_T[: len(sequences[index].completion)]
        return found

    def step(
        self,
        sequences: Sequence[Tokens],
        loss: Loss,
        temperature: float = 1.0,
        *,
        entropy: bool = False,
        vocabulary: bool = False,
    ) -> Update:
        assert self._optimizer is not None, "begin(steps) comes first"
        total, sums, device = 0.0, Sums(), self._model.device
        head_VH = None if vocabulary else self._begin_head_gradient()
        passes = forward_passes(
            self._model,
            sequences,
            self._most_tokens,
            share=not (self._checkpointing or vocabulary),  # a teacher reads the same batch, prompts included
            sparse=head_VH is not None and self._model.embeds_sparsely,
        )
        with (
            enough_memory("a training pass", LOWER),
            # One block for all: weights are cast once, unless memory is what checkpointing is to save.
            mixed_precision(self._precision, device, keep_casts=not self._checkpointing),
        ):
            for indices, batch in passes:
                found = self._model(
                    batch, temperature, entropy=entropy, vocabulary=vocabulary, head_gradient_VH=head_VH
                )
                part, its_sums = loss(indices, found, batch)
                if not part.isfinite():
                    raise NotFinite("the loss", part.item())
                with full_precision(device):
                    part.backward()
                total += part.item()
                for name, value in its_sums.items():
                    sums[name] = sums[name] + value if name in sums else value
        grad_norm = self._optimizer.step()
        return Update(total, sums, grad_norm, self._optimizer.learning_rate)

    def _begin_head_gradient(self) -> Tensor | None:
        """Zeros that the head adds its gradient to, and an embedding tied to it; None where it is small."""
        weight = self._policy.model.get_output_embeddings().weight
        if not (isinstance(weight, Tensor) and weight.requires_grad and weight.numel() >= LARGE):
            return None
        weight.grad = torch.zeros_like(weight)
        return weight.grad

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._policy.model.state_dict().items()

    def save(self, folder: Path) -> None:
        save_policy(self._policy, folder)

    def _trained(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self._model.named_parameters() if weight.requires_grad}

    def state_dict(self) -> dict[str, Any]:
        assert self._optimizer is not None
        state = {"weights": self._trained(), "optimizer": self._optimizer.state_dict()}
        if self._reference and self._reference_moved:
            state["reference"] = self._reference.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert self._optimizer is not None
        if differing := self._trained().keys() ^ state["weights"].keys():
            raise ValueError(f"weights that are trained differ, as {min(differing)}")
        self._model.load_state_dict(state["weights"], strict=False)
        self._optimizer.load_state_dict(state["optimizer"])
        if "reference" in state:
            assert self._reference is not None
            self._reference.load_state_dict(state["reference"])
            self._reference_moved = True
