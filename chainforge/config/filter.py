"""Settings of the verb `filter`."""

from typing import Annotated, Literal

from pydantic import Field

from chainforge.config.loading import Settings
from chainforge.config.types import Count, File, Fraction, PluginSettings, Positive, Real, Repeats

Script = Literal[
    "Latin", "Han", "Hiragana", "Katakana", "Hangul", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari",
    "Bengali", "Tamil", "Telugu", "Thai",
]  # fmt: skip
Choose = Literal["first", "shortest", "spread"]
Similarity = Annotated[float, Field(ge=50, le=100)]


class FilterSettings(Settings):
    """Verb `filter`: keep the traces that are worth copying."""

    output: File
    """JSONL of accepted examples to write."""
    card: File
    """Data-set card to write, in Markdown: README.md beside `output`."""
    prompts: File
    """JSONL of the prompts that were asked."""
    traces: File
    """JSONL of traces."""
    calls: File
    """JSON of what the traces cost, as `collect` wrote it."""
    reward: str = "correct"
    """Reward plugin that decides whether a trace is right."""
    reward_settings: PluginSettings = Field(default_factory=dict)
    """Reward plugin -> settings of its own, for a reward that has any; those of others are let be."""
    min_reward: Real = 1.0
    """A trace below this is dropped; one that the reward does not apply to is kept."""
    scripts: list[Script] = Field(default_factory=list)
    """Scripts that reasoning and answer are to be written in, such as [Latin]; an empty list allows all. \
    It tells scripts apart, not English from French; notation and single letters count for none."""
    min_script_share: Fraction = 0.95
    """Least share of words in `scripts`, in the reasoning and in the answer."""
    min_characters: Count = 0
    """Shorter responses are dropped, reasoning and answer together."""
    max_characters: Positive = 32768
    """Longer responses are dropped, reasoning and answer together."""
    max_repetition: Fraction = 1.0
    """Most of the stretches of 64 characters that may have occurred before, in the reasoning and in the \
    answer: 0.3 drops what goes round in circles, 1 nothing."""
    decontaminate: list[File] = Field(default_factory=list)
    """JSONL files of evaluation prompts: training prompts with the same text are dropped."""
    decontaminate_words: Positive | None = None
    """Drop too what shares a run of N words with them: 8 is customary; null compares whole texts \
    only. Problems made from templates share words without being the same: null."""
    near_duplicate_prompts: Similarity | None = None
    """Of prompts at least so similar, in percent, the first stays: 95 suits problems in prose; null \
    drops the same text only."""
    near_duplicate_responses: Similarity | None = None
    """The same for the responses to one prompt."""
    keep_per_prompt: Repeats = 1
    """Accepted traces per prompt."""
    choose: Choose = "first"
    """Which of them: the first, the shortest, or evenly from the shortest to the longest."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")] | None = None
    """Language code for the card, such as en; null leaves it out. No trace is dropped for it."""
