"""How weights are updated, for every verb that trains."""

from typing import Annotated

from chainforge.algorithms.schedule import SCHEDULES
from chainforge.config.loading import Settings
from chainforge.config.types import Above0, AtLeast0, Decay, Fraction, OneOf, Rate, RateOr0

Schedule = Annotated[str, OneOf(SCHEDULES)]


class OptimizerSettings(Settings):
    """How weights are updated, for every verb that trains."""

    learning_rate: Rate
    """AdamW's peak rate."""
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
