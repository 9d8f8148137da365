"""The optimizer, its learning-rate schedule, and a guarded step."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.optim import AdamW, Muon, Optimizer
from transformers import PreTrainedModel

from chainforge.algorithms.schedule import SCHEDULES
from chainforge.config.optimizer import OptimizerSettings
from chainforge.errors import ChainForgeError
from chainforge.memory import enough_memory


class ScheduledOptimizer:
    """AdamW, or Muon for the hidden matrices with AdamW for the rest, under one schedule.

    Source: AdamW, arXiv 1711.05101; Muon, https://docs.pytorch.org/docs/stable/generated/torch.optim.Muon.html
    """

    def __init__(self, model: PreTrainedModel, settings: OptimizerSettings, steps: int) -> None:
        """`steps` is how many there will be: the learning rate follows."""
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        embeddings = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings())}
        hidden = [p for p in self.parameters if p.ndim == 2 and id(p) not in embeddings]
        rest = [p for p in self.parameters if not (p.ndim == 2 and id(p) not in embeddings)]
        groups = [{"params": rest, "weight_decay": 0.0}]
        self._optimizers: list[Optimizer] = []
        if settings.muon_learning_rate > 0:
            self._optimizers.append(
                Muon(hidden, lr=settings.muon_learning_rate, weight_decay=settings.weight_decay)
            )
        else:
            groups.append({"params": hidden, "weight_decay": settings.weight_decay})
        self._optimizers.append(
            AdamW(groups, lr=settings.learning_rate, betas=(0.9, settings.beta2), fused=True)
        )
        self._peaks = [[group["lr"] for group in o.param_groups] for o in self._optimizers]
        self._factor = partial(
            SCHEDULES[settings.schedule],
            steps=steps,
            warmup_fraction=settings.warmup_fraction,
            floor_fraction=settings.floor_fraction,
        )
        self._max_grad_norm = settings.max_grad_norm
        self._taken = 0
        self.learning_rate = 0.0

    @enough_memory("the optimizer's moments", "choose a smaller model, or a machine with more memory")
    def step(self) -> float:
        """Clip, update, clear; returns the gradient norm before clipping. A non-finite one raises."""
        norm = clip(self.parameters, self._max_grad_norm)
        if not norm.isfinite():
            raise NotFinite("the gradient norm", float(norm))
        self._taken += 1
        factor = self._factor(self._taken)
        for optimizer, peaks in zip(self._optimizers, self._peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.learning_rate = self._peaks[-1][0] * factor
        return float(norm)

    def make_moments(self) -> None:
        """Have moments of zero now, and not from the first step on: a saved state is read into them."""
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 0.0
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
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for optimizer, its_state in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(its_state)
        self._taken, self.learning_rate = state["taken"], state["learning_rate"]


class NotFinite(ChainForgeError):
    """A loss or gradient that is not a number: nothing may be saved after it."""

    def __init__(self, what: str, value: float) -> None:
        super().__init__(f"{what} is {value}", "lower the learning rate, or max_grad_norm")


def clip(parameters: Iterable[Parameter], max_norm: float) -> Tensor:
    """Scale the gradients down to this norm in place; returns the norm before, that of all processes."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
