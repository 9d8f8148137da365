"""Settings of the verb `sft`."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from chainforge.config.impossible import Impossible
from chainforge.config.loading import Choice, Role
from chainforge.config.optimizer import OptimizerSettings, Schedule
from chainforge.config.types import (
    Epochs,
    File,
    Fraction,
    Items,
    Positive,
    Rate,
    Tokens,
)


class SftSettings(OptimizerSettings):
    """Verb `sft`: supervised fine-tuning, loss on the response only."""

    output: File
    """Checkpoint folder to write."""
    examples: File
    """JSONL of examples."""
    extra_examples: File | None = None
    """A second JSONL, mixed in; null for none."""
    start_from: File | None = None
    """A checkpoint folder to go on from; null starts from the base model, or the student's own `model`."""
    base_model: Annotated[Choice, Role("student_models")] | None = None
    """The section of that name: what `sft_cold_start` and `sft_refine` start from. Students have `model`."""
    model: Annotated[Choice, Role("student_models")] | None = None
    """A student's model: a student model plugin and its settings."""
    num_epochs: Epochs = 2.0
    """Passes over the examples."""
    batch_size: Items = 16
    """Examples per optimizer step, whatever the micro-batch."""
    max_tokens: Tokens = 2048
    """Longer examples are dropped, and counted."""
    learning_rate: Rate = 1e-5
    """AdamW's peak rate."""
    schedule: Schedule = "cosine"
    """Learning rate after warm-up."""
    warmup_fraction: Fraction = 0.05
    """Share of the steps with a rising rate."""
    floor_fraction: Fraction = 0.1
    """Where the cosine ends, as a share of the peak."""
    eval_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Share of the examples held out for the evaluation loss (at most 500)."""
    eval_every: Positive = 200
    """Optimizer steps between evaluation losses."""

    @model_validator(mode="before")
    @classmethod
    def _either_or(cls, given: Any) -> Any:
        """The base model is for a step that goes on from no checkpoint."""
        if isinstance(given, dict) and given.get("start_from") is not None:
            return {name: value for name, value in given.items() if name != "base_model"}
        return given

    @model_validator(mode="after")
    def _possible(self) -> "SftSettings":
        if self.base_model and self.model:
            raise Impossible(
                "this step has no model of its own, it starts from base_model",
                "take `model` out and set base_model, which both steps read; or set start_from",
            )
        if "base_model" in self.model_fields_set and not self.base_model:
            raise Impossible(
                "there is no base_model", "name a plugin there, or set start_from to a checkpoint"
            )
        if not self.base_model and (self.start_from is None) == (self.model is None):
            raise Impossible(
                "start_from and model exclude each other", "set exactly one of them, the other null"
            )
        return self

    @property
    def new_model(self) -> Choice | None:
        """The plugin whose model is trained; None where the step goes on from `start_from`."""
        return self.model or self.base_model
