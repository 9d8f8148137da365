"""Settings of the verb `prompts`."""

from typing import Annotated, Literal

from chainforge.config.loading import Choice, Role, Settings
from chainforge.config.types import Positive


class PromptsSettings(Settings):
    """Verb `prompts`: one set, deduplicated, and refused where training and evaluation overlap."""

    source: Annotated[Choice, Role("prompt_sources")]
    """Prompt source plugin and its settings."""
    train: Positive
    """Training prompts."""
    eval: Positive
    """Held-out prompts; none of them may occur in training."""
    dev: Positive = 200
    """Problems of the development split, at most, where `evaluate.split` is dev."""
    dev_from: Literal["eval", "train"] = "eval"
    """Of which half of the source they are; train for a data set, so that its own test file stays unread."""
