"""Settings of the verb `prompts`."""

from typing import Annotated

from chainforge.config.loading import Choice, Role, Settings
from chainforge.config.types import Positive


class PromptSetSettings(Settings):
    """One set of prompts: a source, and how many of each split."""

    source: Annotated[Choice, Role("prompt_sources")]
    """Prompt source plugin and its settings."""
    train: Positive
    """Training prompts."""
    eval: Positive
    """Held-out prompts; none of them may occur in training."""


class PromptsSettings(Settings):
    """Verb `prompts`: materialise, deduplicate, refuse overlap of train and evaluation."""

    reasoning: PromptSetSettings
    """Prompts whose answers can be checked."""
    general: PromptSetSettings
    """Everything else the final model should do."""
