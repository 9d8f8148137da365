"""How tokens are drawn, for every verb that samples."""

from typing import Annotated

from pydantic import Field

from chainforge.config.engine import EngineSettings
from chainforge.config.loading import Settings
from chainforge.config.types import Count, Temperature, Tokens


class SamplingSettings(Settings):
    """How tokens are drawn, for every verb that samples."""

    temperature: Temperature = 1.0
    """0 is greedy."""
    top_p: Annotated[float, Field(ge=1e-6, le=1)] = 1.0
    """Nucleus: the smallest set of tokens with at least this probability."""
    top_k: Count = 0
    """Only the k likeliest tokens; 0 for all."""
    max_new_tokens: Tokens = 256
    """Completions are cut here."""
    engine: EngineSettings = EngineSettings()
    """Which engine samples."""
