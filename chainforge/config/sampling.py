"""How tokens are drawn, for every verb that samples."""

from typing import Annotated

from pydantic import Field, model_validator

from chainforge.config.engine import EngineSettings
from chainforge.config.impossible import Impossible
from chainforge.config.loading import Settings
from chainforge.config.types import Count, PluginSettings, Temperature, Tokens

WARMEST_OF_VLLM = 2.0


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
    reward_settings: PluginSettings = Field(default_factory=dict)
    """Reward plugin -> settings of its own, for a reward that has any; those of others are let be."""

    @model_validator(mode="after")
    def _engine_takes(self) -> "SamplingSettings":
        if self.engine.kind == "vllm" and self.temperature > WARMEST_OF_VLLM:
            raise Impossible(
                f"vLLM takes temperatures up to {WARMEST_OF_VLLM:g}, and this one is {self.temperature:g}",
                "lower temperature, or set engine to {kind: local}",
            )
        return self
