"""Bytes that training holds on one device, by what they are for: the one table, for who plans and who tells.

Per trained weight in float32: 4 of weight, 4 of gradient, 8 of AdamW's moments; 2 of cast in mixed precision.
"""

from dataclasses import dataclass
from itertools import chain

from torch import nn
from transformers import PreTrainedModel

from chainforge.config.optimizer import OptimizerSettings
from chainforge.learner.forward_passes import CASTS
from chainforge.models.precision import ROUNDED

FLOAT32, HALF = 4, 2  # bytes
EIGHT_BIT = 1 + 4 / 256  # a byte, and a float32 for each block of 256
BACKWARD = 0.9  # of what a layer keeps: what comes and goes in its backward pass
LOGITS = 12  # bytes per logit in the head's chunk, or per token and entry of a distilled vocabulary


@dataclass(frozen=True)
class Sizes:
    """Distinct weights of a model, counted."""

    trained: int
    frozen: int
    linear: int  # in linear layers but the head: those that autocast copies
    tables: int  # in input embedding and head
    layers: int

    @property
    def all(self) -> int:
        """Trained or not."""
        return self.trained + self.frozen


def sizes(model: PreTrainedModel) -> Sizes:
    """Count them; no weight is read."""
    weights = list(model.parameters())
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    tables = {id(m.weight): m.weight for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    linears = (module.weight for module in model.modules() if isinstance(module, nn.Linear))
    return Sizes(
        trained,
        sum(weight.numel() for weight in weights) - trained,
        sum(weight.numel() for weight in linears if id(weight) not in tables),
        sum(weight.numel() for weight in tables.values()),
        int(model.config.get_text_config().num_hidden_layers),
    )


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
        trained = FLOAT32 if size.frozen else self._weight  # an adapter stays float32 beside rounded weights
        parts = {
            "weights": (trained * size.trained + self._weight * size.frozen) / self.shards,
            "gradients": trained * size.trained / self.shards,
            "moments": self._moments(trained) / self.shards,
            "reference": self._weight * self.reference.all / self.shards if self.reference else 0.0,
            "teacher": self._weight * self.teacher.all if self.teacher else 0.0,
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
            *(["share the weights among GPUs (runtime.sharding: fully-sharded)"] if self.shards == 1 else []),
        ]

    @property
    def _weight(self) -> int:
        return HALF if self.precision == ROUNDED else FLOAT32

    def _moments(self, each: int) -> float:
        size = self.model
        if self.settings.optimizer == "adamw-8bit":
            return 2 * EIGHT_BIT * size.trained
        by_muon = min(size.linear, size.trained) if self.settings.muon_learning_rate > 0 else 0
        return each * by_muon + 2 * each * (size.trained - by_muon)

    def _casts(self, checkpointing: bool) -> float:
        """Of all layers for as long as a pass lasts; of one at a time where memory is to be saved."""
        if self.precision not in CASTS:
            return 0.0
        one_by_one = checkpointing or self.shards > 1
        own = HALF * self.model.linear / (self.model.layers if one_by_one else 1)
        return own + (HALF * self.teacher.linear if self.teacher else 0)

    @property
    def _gathered(self) -> float:
        """Of a sharded model: the tables, and two layers, one of them on its way; with their gradients."""
        if self.shards == 1:
            return 0.0
        size = self.model
        whole = size.tables + 2 * (size.all - size.tables) / size.layers
        return self._weight * whole * (2 if size.trained > size.frozen else 1)


@dataclass(frozen=True)
class Activations:
    """Bytes per token. `kept` from the forward pass for the backward pass, and by one `layer` of these where
    nothing is saved; `vocabulary` is how many logits a token has where all are distilled, or 0."""

    kept: float
    layer: float
    vocabulary: int = 0

    def at_peak(self, *, checkpointing: bool) -> float:
        """With what comes and goes in the backward pass. With checkpointing a layer is there a second time."""
        return self.kept + self.layer * (checkpointing + BACKWARD) + LOGITS * self.vocabulary


def total(parts: dict[str, float], *more: float) -> float:
    """Bytes."""
    return sum(chain(parts.values(), more))


def in_gb(size: float) -> str:
    """Bytes in units of 10⁹."""
    return f"{size / 1e9:,.1f} GB"
