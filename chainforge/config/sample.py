"""Settings of the verb `sample`."""

from pydantic import model_validator

from chainforge.algorithms.selection import Policy
from chainforge.config.impossible import Impossible
from chainforge.config.sampling import SamplingSettings
from chainforge.config.types import File, Positive, Real, Repeats, Rewards


class SampleSettings(SamplingSettings):
    """Verb `sample`: rejection sampling."""

    output: File
    """JSONL of accepted examples to write."""
    start_from: File
    """Checkpoint folder."""
    prompts: File
    """JSONL of prompts."""
    extra_prompts: File | None = None
    """A second JSONL of prompts; null for none."""
    max_prompts: Positive | None = None
    """Only the first N of `prompts`; null for all."""
    extra_max_prompts: Positive | None = None
    """Only the first N of `extra_prompts`; null for all."""
    samples: Repeats = 4
    """Completions per prompt."""
    rewards: Rewards
    """Reward plugin -> weight."""
    min_reward: Real = 1.0
    """Completions whose weighted sum is below this are dropped."""
    policy: Policy = "distinct"
    """best: the one best per prompt; distinct: up to `keep_per_prompt` different ones."""
    keep_per_prompt: Repeats = 1
    """Accepted completions per prompt."""

    @model_validator(mode="after")
    def _possible(self) -> "SampleSettings":
        if self.policy == "best" and self.keep_per_prompt != 1:
            raise Impossible(
                f"policy best keeps one completion per prompt, not {self.keep_per_prompt}",
                "set keep_per_prompt to 1, or policy to distinct",
            )
        return self
