"""Bytes that training holds on one device, by what they are for: the one table, for who plans and who tells.

Per trained weight in float32: 4 of weight, 4 of gradient, 8 of AdamW's moments; 2 of cast in mixed precision.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from chainforge.config.optimizer import OptimizerSettings
from chainforge.learner.forward_passes import CASTS
from chainforge.models.precision import ROUNDED

HALF = 2  # bytes of a number in 16 bits
JOINED = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
EIGHT_BIT = 1 + 4 / 256  # a byte, and a float32 for each block of 256
BACKWARD = 0.9  # of what a layer keeps: what comes and goes in its backward pass
LOGITS = 12  # bytes per logit in the head's chunk, or per token and entry of a distilled vocabulary


@dataclass(frozen=True)
class Sizes:
    """Distinct weights of a model, counted."""

    trained: int
    frozen: int
    trained_bytes: int
    frozen_bytes: int
    linear: int  # in linear layers but the head: those that autocast copies
    joined: int  # of these, the ones that the sampler joins with others
    tables: int  # in input embedding and head
    layers: int

    @property
    def all(self) -> int:
        """Trained or not."""
        return self.trained + self.frozen

    @property
    def bytes(self) -> int:
        """As the weights are."""
        return self.trained_bytes + self.frozen_bytes


def sizes(model: PreTrainedModel) -> Sizes:
    """Count them; no weight is read."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    frozen = [weight for weight in model.parameters() if not weight.requires_grad]
    tables: dict[int, Any] = {id(m.weight): m.weight for m in _tables(model)}
    linear = {name: module.weight for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    linear = {name: weight for name, weight in linear.items() if id(weight) not in tables}
    return Sizes(
        _count(trained),
        _count(frozen),
        sum(weight.nbytes for weight in trained),
        sum(weight.nbytes for weight in frozen),
        _count(linear.values()),
        _count(weight for name, weight in linear.items() if any(f".{part}" in name for part in JOINED)),
        _count(tables.values()),
        int(model.config.get_text_config().num_hidden_layers),
    )


def _tables(model: PreTrainedModel) -> tuple[nn.Module, nn.Module]:
    return model.get_input_embeddings(), model.get_output_embeddings()


def _count(weights: Iterable[Tensor]) -> int:
    return sum(weight.numel() for weight in weights)


@dataclass(frozen=True)
class Training:
    """What a step trains, and beside what."""

    model: Sizes
    precision: str
    settings: OptimizerSettings
    reference: Sizes | None = None  # a second model; an adapter that is off is none
    teacher: Sizes | None = None
    shards: int = 1  # processes that share weights, gradients and moments among them

    def held(self, *, checkpointing: bool) -> dict[str, float]:
        """Bytes by name, for as long as passes go on; activations come on top."""
        size = self.model
        parts = {
            "weights": size.bytes / self.shards,
            "gradients": size.trained_bytes / self.shards,
            "moments": self._moments() / self.shards,
            "reference": self.reference.bytes / self.shards if self.reference else 0.0,
            "teacher": self.teacher.bytes if self.teacher else 0.0,
            "casts": self._casts(checkpointing),
            "gathered": self._gathered,
        }
        return {name: value for name, value in parts.items() if value}

    def remedies(self, *, checkpointing: bool) -> list[str]:
        """Settings that would take less, the gentlest first."""
        whole = not self.model.frozen
        return [
            *(["set runtime.gradient_checkpointing to auto"] if not checkpointing else []),
            *(["set grpo.kl_coeff to 0"] if self.reference else []),
            *(["set adapter to {kind: lora}"] if whole else []),
            *(["set optimizer to adamw-8bit"] if whole and self.settings.optimizer == "adamw" else []),
            *(["set run.precision to bfloat16-weights"] if self.precision != ROUNDED else []),
            *(["share the weights (runtime.sharding: fully-sharded)"] if self.shards == 1 else []),
        ]

    def _moments(self) -> float:
        size = self.model
        each = size.trained_bytes / max(1, size.trained)
        if self.settings.optimizer == "adamw-8bit":  # but for tables
            tables = 0 if size.frozen else size.tables
            return 2 * (each * tables + EIGHT_BIT * (size.trained - tables))
        by_muon = min(size.linear, size.trained) if self.settings.muon_learning_rate > 0 else 0
        return each * (2 * size.trained - by_muon)

    def _casts(self, checkpointing: bool) -> float:
        """Of all layers for as long as a pass lasts; of one at a time where memory is to be saved."""
        if self.precision not in CASTS:
            return 0.0
        one_by_one = checkpointing or self.shards > 1
        own = HALF * self.model.linear / (self.model.layers if one_by_one else 1)
        return own + (HALF * self.teacher.linear if self.teacher else 0)

    @property
    def _gathered(self) -> float:
        """Of a sharded model: tables and two layers, one of them on its way; gradients of tables."""
        if self.shards == 1:
            return 0.0
        size = self.model
        each = HALF if self.precision == "bfloat16" else size.bytes / size.all
        whole = each * (size.tables + 2 * (size.all - size.tables) / size.layers)
        return whole + (0 if size.frozen else size.bytes / size.all * size.tables)


@dataclass(frozen=True)
class Activations:
    """Bytes per token. `kept`: from the forward pass for the backward pass. `layer`: what one layer keeps
    where all is kept. `vocabulary`: how many logits a token has where they are distilled, or 0."""

    kept: float
    layer: float
    vocabulary: int = 0

    def at_peak(self, *, checkpointing: bool) -> float:
        """With what comes and goes in the backward pass; where it is checkpointed, a layer once more."""
        return self.kept + self.layer * (checkpointing + BACKWARD) + LOGITS * self.vocabulary


def copy_bytes(model: Sizes, precision: str) -> float:
    """Of a copy to sample from, without an adapter: in 16 bits where products are, else in float32."""
    size = HALF if precision in CASTS or precision == ROUNDED else 4
    return float(size * (model.frozen or model.trained))


def total(parts: dict[str, float], *more: float) -> float:
    """Bytes."""
    return sum(chain(parts.values(), more))


def in_gb(size: float) -> str:
    """Bytes in units of 10⁹."""
    return f"{size / 1e9:,.1f} GB"
