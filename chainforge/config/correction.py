"""What makes up for a sampler that is not quite the policy."""

from collections.abc import Sequence
from typing import Annotated, Literal, TypedDict

from pydantic import Field, model_validator

from chainforge.config.impossible import Impossible
from chainforge.config.loading import Settings
from chainforge.config.types import Above0

FAR = 0.1  # nats per token from sampler to policy: bfloat16 is 0.01 to 0.04 off, 8-bit weights about as much
MOST_MASKED = 0.5  # of the completions


class Bounds(TypedDict):
    """See `CorrectionSettings`."""

    token_cap: float | None
    sequence_band: Sequence[float] | None


class CorrectionSettings(Settings):
    """What makes up for a sampler that is not quite the policy (group `sampling_correction`)."""

    when: Literal["auto", "always", "never"] = "auto"
    """auto: unless the sampler computes what the learner does: engine local in float32."""
    token_cap: Above0 | None = 2.0
    """Tokens weigh min(p / q, token_cap): p of the policy, q of the sampler; null: 1."""
    sequence_band: Annotated[list[Above0], Field(min_length=2, max_length=2)] | None = None
    """Completions whose geometric mean of p / q is outside do not count; null: all do. [0.99, 1.01] is for
    completions of hundreds of tokens: short ones leave it by chance."""

    @property
    def bounds(self) -> Bounds:
        """What algorithms/importance_sampling.py asks for."""
        return {"token_cap": self.token_cap, "sequence_band": self.sequence_band}

    @model_validator(mode="after")
    def _around_one(self) -> "CorrectionSettings":
        if self.sequence_band is not None and not self.sequence_band[0] <= 1 <= self.sequence_band[1]:
            raise Impossible(
                f"the band {self.sequence_band} does not hold 1: it would leave out what needs no correction",
                "give the lower bound, then the upper one, such as [0.99, 1.01]",
            )
        return self
