"""Settings of the look at held-out prompts during GRPO."""

from chainforge.config.loading import Settings
from chainforge.config.types import File, Items, Positive


class WatchSettings(Settings):
    """An independent grader, now and then during training (group `watch`)."""

    prompts: File
    """JSONL of held-out prompts. Take them from a development set: who looks at a test set tunes on it."""
    reward: str
    """Reward plugin that says 1 for a right answer; not one of `rewards`."""
    every: Positive = 10
    """RL steps between two looks; there is one at the first and at the last step as well."""
    max_prompts: Items = 64
    """The first N of the prompts, one completion each."""
