"""Settings of the verb `filter`."""

from chainforge.config.loading import Settings
from chainforge.config.types import File, Positive


class FilterSettings(Settings):
    """Verb `filter`: keep the traces that are worth copying."""

    output: File
    """JSONL of accepted examples to write."""
    prompts: File
    """JSONL of the prompts that were asked."""
    traces: File
    """JSONL of traces."""
    reward: str = "correct"
    """Reward plugin that decides whether a trace is right."""
    min_reward: float = 1.0
    """A trace below this is dropped; one that the reward does not apply to is kept."""
    keep_per_prompt: Positive = 1
    """Accepted traces per prompt, first come first served."""
    max_characters: Positive = 32768
    """Longer responses are dropped."""
