"""Settings of the verb `evaluate`."""

from pydantic import model_validator

from chainforge.config.impossible import Impossible
from chainforge.config.sampling import SamplingSettings
from chainforge.config.types import File, Positive, Repeats, Rewards


class EvaluateSettings(SamplingSettings):
    """Verb `evaluate`: one checkpoint on one bench."""

    prompts: File
    """JSONL of held-out prompts."""
    rewards: Rewards
    """Reward plugins to record; weights are not used here."""
    reward: str = "correct"
    """The reward that decides pass or fail."""
    samples: Repeats = 4
    """Completions per problem, k."""
    greedy: bool = True
    """One greedy completion per problem as well."""
    max_prompts: Positive | None = None
    """Only the first N problems; null for all."""

    @model_validator(mode="after")
    def _reward_is_recorded(self) -> "EvaluateSettings":
        if self.reward not in self.rewards:
            raise Impossible(f"{self.reward!r} is not among rewards", "add it to evaluate.rewards")
        return self
