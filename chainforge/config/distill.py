"""Settings of the verb `distill`."""

from typing import Annotated

from pydantic import Field, model_validator

from chainforge.algorithms.kl import DIVERGENCES
from chainforge.config.impossible import Impossible
from chainforge.config.sampling import SamplingSettings
from chainforge.config.sft import SftSettings
from chainforge.config.types import File, Fraction, OneOf, WarmTemperature


class OnPolicySettings(SamplingSettings):
    """Distillation on what the student itself writes (group `on_policy`)."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the optimizer steps, the last ones: before, the student learns from examples. In these it
    answers the examples' prompts, and the whole loss is its divergence from the teacher on each token."""
    temperature: WarmTemperature = 1.0
    """Of the student's answers."""


class DistillSettings(SftSettings):
    """Verb `distill`: train a student on examples, and where asked on what its teacher says of each token."""

    teacher: File | None = None
    """Checkpoint whose logits are distilled when `logit_kd_weight` is above 0 or `on_policy` is set."""
    logit_kd_weight: Fraction = 0.0
    """Share of the loss on examples that is the divergence from the teacher; tokenizers must agree."""
    divergence: Annotated[str, OneOf(DIVERGENCES)] = "forward-kl"
    """forward-kl: KL(teacher || student), the student covers all that the teacher says; reverse-kl:
    KL(student || teacher), it keeps to what the teacher finds likely; jsd: half of each, to their mean."""
    on_policy: OnPolicySettings | None = None
    """Let the student answer and the teacher judge every token; null trains on examples alone."""

    @model_validator(mode="after")
    def _teacher(self) -> "DistillSettings":
        for name, wanted in {
            "logit_kd_weight": self.logit_kd_weight > 0,
            "on_policy": self.on_policy,
        }.items():
            if wanted and self.teacher is None:
                raise Impossible(f"{name} needs a teacher", "set teacher to a checkpoint folder")
        return self

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher's logits are read."""
        return self.logit_kd_weight > 0 or self.on_policy is not None
