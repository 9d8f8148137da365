"""Settings of the verb `prompts`."""

from typing import Annotated

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
