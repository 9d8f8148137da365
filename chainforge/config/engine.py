"""Which engine samples: for every verb that does."""

from typing import Literal

from chainforge.config.loading import Settings


class EngineSettings(Settings):
    """Which engine samples (group `engine`). Another one gives other completions."""

    kind: Literal["local", "vllm"] = "local"
    """local: ChainForge's own sampler, in the step. vllm: a vLLM server, see `runtime.vllm`; it computes in
    run.precision."""
