"""Settings of the verb `collect`."""

from typing import Annotated

from chainforge.config.loading import Choice, Role, Settings
from chainforge.config.types import File, Positive, Repeats


class CollectSettings(Settings):
    """Verb `collect`: ask a teacher for chains of thought."""

    output: File
    """JSONL of traces to write."""
    calls: File
    """JSON to write: what was asked, answered and paid."""
    prompts: File
    """JSONL of prompts."""
    teacher: Annotated[Choice, Role("teachers")]
    """Teacher plugin and its settings."""
    max_prompts: Positive | None = None
    """Ask about the first N prompts only; null for all."""
    instruction: str | None = None
    """System message in front of every prompt, for a teacher behind an API; not part of the examples."""
    retry_truncated: bool = False
    """Ask a teacher behind an API once more, with twice the max_tokens, where an answer was cut off."""
    samples: Repeats = 1
    """Traces per prompt."""
