"""The optimizer, its learning-rate schedule, and a guarded step."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer
from transformers import PreTrainedModel

from chainforge.algorithms.schedule import SCHEDULES
from chainforge.config.optimizer import OptimizerSettings
from chainforge.errors import ChainForgeError
from chainforge.learner.stacked_muon import StackedMuon
from chainforge.learner.torchao_adamw import EIGHT_BIT, drawing_from, torchao_adamw
from chainforge.memory import enough_memory

SMALLER = (
    "set optimizer to adamw-8bit, adapter to {kind: lora}, or run.precision to bfloat16-weights; or choose a "
    "smaller model, or a machine with more memory"
)


class ScheduledOptimizer:
    """AdamW, or Muon for the hidden matrices with AdamW for the rest, under one schedule.

    In float16, a loss is scaled before its backward pass: `scaled(loss).backward()`. Where that overflows, a
    step changes no weight, and the next one scales by half.
    Source: AdamW, arXiv 1711.05101; Muon, https://docs.pytorch.org/docs/stable/generated/torch.optim.Muon.html
    """

    def __init__(
        self,
        model: PreTrainedModel,
        settings: OptimizerSettings,
        steps: int,
        *,
        precision: str = "float32",
        seed: int = 0,
    ) -> None:
        """`steps` is how many there will be: the learning rate follows. `seed` is for rounding at random."""
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        embeddings = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings())}
        hidden = [p for p in self.parameters if p.ndim == 2 and id(p) not in embeddings]
        rest = [p for p in self.parameters if not (p.ndim == 2 and id(p) not in embeddings)]
        groups = [{"params": rest, "weight_decay": 0.0}]
        self._optimizers: list[Optimizer] = []
        if settings.muon_learning_rate > 0:
            self._optimizers.append(
                StackedMuon(hidden, lr=settings.muon_learning_rate, weight_decay=settings.weight_decay)
            )
        else:
            groups.append({"params": hidden, "weight_decay": settings.weight_decay})
        tables = [p for p in rest if id(p) in embeddings]
        eight_bit = settings.optimizer == EIGHT_BIT
        if apart := eight_bit and tables:
            groups[0]["params"] = [p for p in rest if id(p) not in embeddings]
        self._optimizers.append(_adamw(groups, settings, eight_bit=eight_bit))
        if apart:
            # A block of their moments has rows of common and of rare tokens. What is small beside the largest
            # is 0 in 8 bits, and a weight whose second moment is 0 leaps. Source: arXiv 2110.02861, 2.3
            self._optimizers.append(_adamw([{"params": tables, "weight_decay": 0.0}], settings))
        self._device, self._seed = model.device, seed
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=precision == "float16")
        self._peaks = [[float(group["lr"]) for group in o.param_groups] for o in self._optimizers]
        self._factor = partial(
            SCHEDULES[settings.schedule],
            steps=steps,
            warmup_fraction=settings.warmup_fraction,
            floor_fraction=settings.floor_fraction,
        )
        self._max_grad_norm = settings.max_grad_norm
        self._taken = 0
        self.learning_rate = 0.0

    @enough_memory("the optimizer's moments", SMALLER)
    def step(self) -> float:
        """Clip, update, clear; returns the gradient norm before clipping. A non-finite one raises."""
        for optimizer in self._optimizers:
            self._scaler.unscale_(optimizer)
        norm = clip(self.parameters, self._max_grad_norm)
        if not norm.isfinite() and not self._can_scale_less:
            raise NotFinite("the gradient norm", float(norm))
        self._taken += 1
        factor = self._factor(self._taken)
        for optimizer, peaks in zip(self._optimizers, self._peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                _set_rate(group, peak * factor)
            with self._rounding(optimizer):
                self._scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self._scaler.update()
        self.learning_rate = self._peaks[-1][0] * factor
        return float(norm)

    def scaled(self, loss: Tensor) -> Tensor:
        """What the backward pass starts from."""
        return self._scaler.scale(loss)

    def _rounding(self, optimizer: Optimizer) -> AbstractContextManager[None]:
        by_torchao = type(optimizer).__module__.startswith("torchao")
        return drawing_from(self._device, self._seed, self._taken) if by_torchao else nullcontext()

    @property
    def _can_scale_less(self) -> bool:
        """Whether numbers that are not finite may be those of a scale that is too large."""
        return self._scaler.is_enabled() and self._scaler.get_scale() > 1

    @enough_memory("the optimizer's moments", SMALLER)
    def make_moments(self) -> None:
        """Have moments of zero now, and not from the first step on: a saved state is read into them."""
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                _set_rate(group, 0.0)
            with self._rounding(optimizer):
                optimizer.step()
            for state in optimizer.state.values():
                if "step" in state:
                    state["step"].zero_()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, besides the weights."""
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "taken": self._taken,
            "learning_rate": self.learning_rate,
            **({"scaler": self._scaler.state_dict()} if self._scaler.is_enabled() else {}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for optimizer, its_state in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.state.clear()  # else the old moments would lie beside the new ones
            optimizer.load_state_dict(its_state)
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
        self._taken, self.learning_rate = state["taken"], state["learning_rate"]


def _adamw(
    groups: list[dict[str, Any]], settings: OptimizerSettings, *, eight_bit: bool = False
) -> Optimizer:
    options: dict[str, Any] = {"lr": settings.learning_rate, "betas": (0.9, settings.beta2)}
    if eight_bit or any(weight.dtype == torch.bfloat16 for group in groups for weight in group["params"]):
        return torchao_adamw(groups, eight_bit=eight_bit, **options)
    return AdamW(groups, fused=True, **options)


def _set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):  # torchao's: compiled code reads it there
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


class NotFinite(ChainForgeError):
    """A loss or gradient that is not a number: nothing may be saved after it."""

    def __init__(self, what: str, value: float) -> None:
        super().__init__(f"{what} is {value}", "lower the learning rate, or max_grad_norm")


def clip(parameters: Iterable[Parameter], max_norm: float) -> Tensor:
    """Scale the gradients down to this norm in place; returns the norm before, that of all processes."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
