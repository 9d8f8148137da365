"""Settings of the verb `evaluate`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from chainforge.config.bench import BenchSettings
from chainforge.config.impossible import Impossible
from chainforge.config.loading import Choice, Role
from chainforge.config.sampling import SamplingSettings
from chainforge.config.types import Positive, Repeats


class EvaluateSettings(SamplingSettings):
    """Verb `evaluate`: one checkpoint on one bench."""

    base_model: Annotated[Choice, Role("student_models")] | None = None
    """The section of that name, in the steps `evaluate_base` alone: it is evaluated untouched."""
    rewards: Annotated[list[str], Field(min_length=1)]
    """Reward plugins to record."""
    reward: str = "correct"
    """The reward that decides pass or fail."""
    samples: Repeats = 4
    """Completions per problem, k."""
    greedy: bool = True
    """One greedy completion per problem as well."""
    split: Literal["test", "dev"] = "test"
    """Which held-out problems: choose settings on dev, and read the test once they are chosen."""
    max_prompts: Positive | None = None
    """Only the first N problems; null for all."""

    @model_validator(mode="before")
    @classmethod
    def _without_those_of_bench(cls, given: Any) -> Any:
        """`benches.NAME` has settings of two verbs."""
        return {name: value for name, value in given.items() if name not in BenchSettings.model_fields}

    @field_validator("rewards", mode="before")
    @classmethod
    def _names_alone(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            raise Impossible("weights have no effect here", f"write the names alone: [{', '.join(given)}]")
        return given

    @model_validator(mode="after")
    def _reward_is_recorded(self) -> "EvaluateSettings":
        if self.reward not in self.rewards:
            raise Impossible(f"{self.reward!r} is not among rewards", "add it to evaluate.rewards")
        return self
