"""How weights are updated, for every verb that trains."""

from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import model_validator

from chainforge.algorithms.schedule import SCHEDULES
from chainforge.config.adapter import AdapterSettings
from chainforge.config.impossible import Impossible
from chainforge.config.loading import Settings
from chainforge.config.types import Above0, AtLeast0, Decay, Fraction, OneOf, Rate, RateOr0
from chainforge.errors import ChainForgeError

Schedule = Annotated[str, OneOf(SCHEDULES)]


class OptimizerSettings(Settings):
    """How weights are updated, for every verb that trains."""

    optimizer: Literal["adamw", "adamw-8bit"] = "adamw"
    """adamw-8bit keeps AdamW's two moments in 8 bits each, not 32; but those of embeddings (torchao)."""
    adapter: AdapterSettings | None = None
    """What is trained: a new adapter, merged in the checkpoint; or, with null, all weights."""
    learning_rate: Rate
    """AdamW's peak rate; with an adapter about ten times that of all weights."""
    muon_learning_rate: RateOr0 = 0.0
    """Above 0: Muon for the hidden matrices at this rate, AdamW for the rest (small models from scratch)."""
    beta2: Decay = 0.95
    """AdamW's second-moment decay."""
    weight_decay: RateOr0 = 0.0
    """Decoupled weight decay of the matrices."""
    schedule: Schedule = "constant"
    """Learning rate after warm-up."""
    warmup_fraction: Fraction = 0.0
    """Share of the steps with a rising rate."""
    floor_fraction: Fraction = 0.0
    """Where the cosine ends, as a share of the peak."""
    router_aux_loss_coef: AtLeast0 = 0.0
    """Weight of the loss that keeps a model's experts in use, per sequence; 0 for none."""
    max_grad_norm: Above0 = 1.0
    """Gradients are scaled down to this norm."""

    @model_validator(mode="after")
    def _adapters_by_adamw(self) -> "OptimizerSettings":
        if self.adapter and self.muon_learning_rate > 0:
            raise Impossible(
                "Muon is for whole matrices, not for the two thin ones of an adapter",
                "set muon_learning_rate to 0.0, or adapter to null",
            )
        return self

    def check_installed(self, precision: str) -> None:
        """Raise ChainForgeError where a package is missing, with the command that installs it."""
        if self.adapter:
            self.adapter.check_installed()
        if self.optimizer == "adamw-8bit":
            check_torchao("optimizer adamw-8bit")
        elif precision == "bfloat16-weights" and not self.adapter:
            check_torchao("run.precision bfloat16-weights")


def check_torchao(setting: str) -> None:
    """Raise ChainForgeError where it is missing."""
    if find_spec("torchao") is None:
        raise ChainForgeError(f"{setting} needs the package torchao", "pip install 'chainforge-r1[memory]'")
