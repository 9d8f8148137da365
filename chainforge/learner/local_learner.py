"""A learner in this process, or in several that share the work."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chainforge.config.optimizer import OptimizerSettings
from chainforge.learner.data_parallel import DataParallel
from chainforge.learner.forward_passes import (
    backward_passes,
    begin_head_gradient,
    mixed_precision,
    note_logp,
)
from chainforge.learner.fully_sharded import FullySharded, splits_weights
from chainforge.learner.learner import Loss, Sums, Update
from chainforge.learner.micro_batch_size import LOWER, plan_passes
from chainforge.learner.optimizer import NotFinite, ScheduledOptimizer
from chainforge.learner.reference import Reference, SecondModel, WithoutAdapter
from chainforge.learner.router_loss import with_router_loss
from chainforge.learner.teacher import Teacher
from chainforge.memory import enough_memory
from chainforge.models.adapters import adapter_weights, attach_adapter, plain_weights
from chainforge.models.batch import Batch, Tokens
from chainforge.models.checkpoint import Policy, save_policy
from chainforge.models.policy_model import LogProbs, PolicyModel
from chainforge.models.precision import settle_precision
from chainforge.run.step import Step


class LocalLearner:
    """See `Learner`. `teacher` is a model that losses ask about the same micro-batches: it needs room. So
    does the copy of an engine that samples apart.

    An adapter goes into the model of `policy`; else `reference` gives one of the same shape. Of several
    processes, each computes some of the sequences; weights, state and results are the same in all.
    """

    def __init__(
        self,
        policy: Policy,
        settings: OptimizerSettings,
        step: Step,
        *,
        reference: Callable[[], Policy] | None = None,
        teacher: Teacher | None = None,
        samples_apart: bool = False,
        longest: Callable[[], int] | None = None,
    ) -> None:
        """`longest` counts the tokens of the longest sequence, where memory is short: on a GPU."""
        self.tokenizer, self.num_parameters = policy.tokenizer, policy.num_parameters
        self._policy, self._settings = policy, settings
        self._precision, self._seed = step.settings.precision, step.seed("rounding")
        settle_precision(self._precision, policy.model, teacher.model if teacher else None)
        if settings.adapter:
            attach_adapter(policy.model, settings.adapter, step.seed("adapter"))
        alike = policy.model if reference else None  # the reference has the same shape
        counted = longest if policy.model.device.type != "cpu" else None
        passes = plan_passes(
            policy.model, settings, step, alike, teacher, samples_apart=samples_apart, longest=counted
        )
        self._checkpointing, self._most_tokens = passes
        self._router_weight = weight = settings.router_aux_loss_coef
        self._model = PolicyModel(
            policy.model, gradient_checkpointing=self._checkpointing, balances_experts=weight > 0
        )
        self._optimizer: ScheduledOptimizer | None = None
        self._processes = (FullySharded if splits_weights(step) else DataParallel)(step.world)
        self._processes.distribute(self._model, self._precision)
        self._reference: Reference = WithoutAdapter(self._model)
        if reference:  # only now: before it is split, a model is there as a whole
            second = PolicyModel(reference().model)
            settle_precision(self._precision, second)
            self._processes.distribute(second, self._precision)
            self._reference = SecondModel(self._model, second)

    def begin(self, steps: int) -> None:
        self._optimizer = ScheduledOptimizer(
            self._policy.model, self._settings, steps, precision=self._precision, seed=self._seed
        )
        # On a GPU before the first pass: made after it, they would lie among what the pass gives back, which
        # could then not be had by a vLLM server on the same GPU.
        if self._processes.world.size > 1 or self._model.device.type == "cuda":
            self._optimizer.make_moments()

    def logprobs(self, sequences: Sequence[Tokens], temperature: float = 1.0) -> list[list[float]]:
        return self._logprobs(self._model, sequences, temperature)

    def reference_logprobs(self, sequences: Sequence[Tokens], temperature: float) -> list[list[float]]:
        with self._reference.computing() as model:
            return self._logprobs(model, sequences, temperature)

    def move_reference(self) -> None:
        self._reference.move()

    @torch.no_grad()
    def _logprobs(
        self, model: PolicyModel, sequences: Sequence[Tokens], temperature: float
    ) -> list[list[float]]:
        places, own = self._processes.own(sequences)
        found: list[list[float]] = [[] for _ in own]
        with enough_memory("a forward pass", LOWER), mixed_precision(self._precision, model.device):
            for indices, batch in self._processes.passes(model, own, self._most_tokens):
                note_logp(found, own, indices, model(batch, temperature).logp_BT)
        return self._processes.gather(places, found)

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
        assert self._optimizer is not None, "begin(steps) comes first"
        optimizer, processes = self._optimizer, self._processes
        places, own = processes.own(sequences)
        if self._router_weight:
            loss = with_router_loss(loss, self._router_weight, len(sequences))
        found: list[list[float]] = [[] for _ in own]

        def its_loss(indices: Sequence[int], given: LogProbs, batch: Batch) -> tuple[Tensor, Sums]:
            if logprobs:
                note_logp(found, own, indices, given.logp_BT)
            return loss([places[index] for index in indices], given, batch)

        whole = not (vocabulary or processes.splits_weights)
        head_VH = begin_head_gradient(self._policy.model) if whole else None
        passes = processes.passes(
            self._model,
            own,
            self._most_tokens,
            share=not (self._checkpointing or vocabulary),  # a teacher reads the same batch, prompts included
            sparse=head_VH is not None and self._model.embeds_sparsely,
        )
        forward = partial(
            self._model,
            temperature=temperature,
            entropy=entropy,
            vocabulary=vocabulary,
            head_gradient_VH=head_VH,
        )
        with (
            enough_memory("a training pass", LOWER),
            # One block for all: weights are cast once, unless memory is what checkpointing is to save.
            mixed_precision(self._precision, self._model.device, keep_casts=not self._checkpointing),
        ):
            total, sums = backward_passes(
                passes, forward, its_loss, lambda part: optimizer.scaled(processes.weigh(part))
            )
        processes.add_up_gradients(optimizer.parameters)
        total, sums = processes.add_up(total, sums)
        if not isfinite(total):
            raise NotFinite("the loss", total)
        grad_norm = optimizer.step()
        before = processes.gather(places, found) if logprobs else None
        return Update(total, sums, grad_norm, optimizer.learning_rate, before)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        for name, weight in plain_weights(self._policy.model):
            yield name, self._processes.whole(weight)

    def adapter(self) -> dict[str, Tensor] | None:
        own = adapter_weights(self._policy.model)
        return {name: self._processes.whole(weight) for name, weight in own.items()} or None

    def save(self, folder: Path) -> None:
        weights, adapter = self._processes.gather_weights(self._policy.model)
        if self._processes.world.is_first:
            save_policy(self._policy, folder, weights, adapter)

    def _trained(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self._model.named_parameters() if weight.requires_grad}

    def state_dict(self) -> dict[str, Any]:
        assert self._optimizer is not None
        state = {"weights": self._trained(), "optimizer": self._optimizer.state_dict()}
        if reference := self._reference.state_dict():
            state["reference"] = reference
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert self._optimizer is not None
        if differing := self._trained().keys() ^ state["weights"].keys():
            raise ValueError(f"weights that are trained differ, as {min(differing)}")
        self._model.load_state_dict(state["weights"], strict=False)
        self._optimizer.load_state_dict(state["optimizer"])
        if "reference" in state:
            self._reference.load_state_dict(state["reference"])
