"""Settings of the verb `sft`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from chainforge.config.loading import Choice, Impossible, Role, Settings
from chainforge.config.types import Above0, AtLeast0, File, Fraction, Positive


class SftSettings(Settings):
    """Verb `sft`: supervised fine-tuning, loss on the response only."""

    output: File
    """Checkpoint folder to write."""
    examples: File
    """JSONL of examples."""
    extra_examples: File | None = None
    """A second JSONL, mixed in; null for none."""
    start_from: File | None = None
    """A checkpoint folder to go on from; null starts from `model`."""
    model: Annotated[Choice, Role("student_models")] | None = None
    """Student model plugin and its settings, where `start_from` is null."""
    teacher: File | None = None
    """Checkpoint whose logits are distilled when `logit_kd_weight` is above 0."""
    logit_kd_weight: Fraction = 0.0
    """Share of the loss that is KL(teacher || student) per token; vocabularies must agree."""
    num_epochs: Above0 = 2.0
    """Passes over the examples."""
    batch_size: Positive = 16
    """Examples per optimizer step, whatever the micro-batch."""
    max_tokens: Positive = 2048
    """Longer examples are dropped, and counted."""
    learning_rate: Above0 = 1e-5
    """AdamW's peak rate."""
    muon_learning_rate: AtLeast0 = 0.0
    """Above 0: Muon for the hidden matrices at this rate, AdamW for the rest (small models from scratch)."""
    beta2: Fraction = 0.95
    """AdamW's second-moment decay."""
    weight_decay: AtLeast0 = 0.0
    """Decoupled weight decay of the matrices."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after warm-up."""
    warmup_fraction: Fraction = 0.05
    """Share of the steps with a rising rate."""
    floor_fraction: Fraction = 0.1
    """Where the cosine ends, as a share of the peak."""
    max_grad_norm: Above0 = 1.0
    """Gradients are scaled down to this norm."""
    eval_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Share of the examples held out for the evaluation loss (at most 500)."""
    eval_every: Positive = 200
    """Optimizer steps between evaluation losses."""

    @model_validator(mode="after")
    def _possible(self) -> "SftSettings":
        if (self.start_from is None) == (self.model is None):
            raise Impossible(
                "start_from and model exclude each other", "set exactly one of them, the other null"
            )
        if self.logit_kd_weight > 0 and self.teacher is None:
            raise Impossible("logit_kd_weight needs a teacher", "set teacher to a checkpoint folder")
        return self
