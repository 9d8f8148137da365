"""Where vLLM servers are and what they may take: none of it changes a result."""

from typing import Annotated, Literal

from pydantic import Field

from chainforge.config.loading import Settings
from chainforge.config.types import File, Seconds


class VllmSettings(Settings):
    """vLLM servers, for steps with `engine: {kind: vllm}` (group `vllm` of section `runtime`)."""

    command: str = "vllm"
    """The program that serves, from an environment of its own: a name on the PATH, or a file."""
    urls: list[str] = Field(default_factory=list)
    """Servers that run already, as http://localhost:8000: used in place of ones that the step starts."""
    arguments: list[str] = Field(default_factory=list)
    """More arguments of `vllm serve`."""
    gpus: Annotated[int, Field(ge=0, le=1024)] = 0
    """How many of the last visible GPUs are the servers' alone; 0: they share those of the learner, and sleep
    while it works."""
    tensor_parallel: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs of one server: as many servers are started as there are groups of that size."""
    memory_share: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    """Share of each GPU's memory that a server takes. auto: 0.9 of one of its own; of a shared one, what the
    learner leaves (docs/vllm.md)."""
    folder: File | None = None
    """Where weights are handed over; null: /dev/shm where there is room, else the step's work folder."""
    start_timeout_s: Seconds = 900.0
    """Seconds that a server may take to start."""
    sync_timeout_s: Seconds = 600.0
    """Seconds that it may take to load new weights."""
    answer_timeout_s: Seconds = 1800.0
    """Seconds without a completion, after which a server counts as hung."""
