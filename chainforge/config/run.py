"""Settings that every step shares."""

from typing import Annotated, Literal

from pydantic import Field

from chainforge.config.loading import Settings
from chainforge.config.types import Items, OneOf, Positive, Seconds, SecondsOr0, Seed
from chainforge.config.vllm import VllmSettings
from chainforge.errors import ChainForgeError
from chainforge.response import PRESETS

TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")  # names of accelerate, and of packages


class RunSettings(Settings):
    """What every step shares (section `run`)."""

    seed: Seed = 17
    """Every random choice derives from this, the step, the iteration and the prompt id."""
    response_format: Annotated[str, OneOf(PRESETS)] = "supercot"
    """Which tags surround reasoning and summary."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads per step. Another number may sum in another order, so it belongs to the result."""
    precision: Literal["float32", "bfloat16", "bfloat16-weights", "float16"] = "float32"
    """Of matrix products. Weights and checkpoints are float32, but for bfloat16-weights: these are bfloat16,
    and rounded at random after each update (torchao). float16 scales its loss, and needs a GPU."""
    watch_versions: list[str] = Field(default_factory=list)
    """Libraries (torch, transformers, …) whose versions belong to every step: another one re-runs all."""


class RuntimeSettings(Settings):
    """What changes no result, and so is not watched by `dvc repro` (section `runtime`)."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where models run; auto takes CUDA, then MPS, then the CPU."""
    processes: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = 1
    """Processes of a step that trains or samples, on this machine; auto: one per visible GPU, 1 on a CPU."""
    sharding: Literal["data-parallel", "fully-sharded"] = "data-parallel"
    """data-parallel: each process has the whole model; fully-sharded: its part of weights and optimizer."""
    micro_batch_tokens: Positive | Literal["auto"] = "auto"
    """Tokens (padding counted) per forward and backward pass; auto: what fits, up to 1,024 on a CPU."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """true: forward passes run twice and activations of a layer at a time are kept: time against memory.
    auto: where it does not fit without."""
    rollout_rows: Items = 512
    """Sequences that the sampler decodes at once: memory against speed."""
    vllm: VllmSettings = VllmSettings()
    """Servers, for steps whose engine is vllm."""
    reward_timeout_s: Seconds = 60.0
    """Seconds one call of a reward may take before the run stops."""
    save_every_s: SecondsOr0 = 60.0
    """Seconds between saves of a step under way: the most work that a kill can lose."""
    keep_completions: bool = False
    """true: what GRPO and rejection sampling sample is kept in logs/completions/, to trace a problem
    (`chainforge trace`) and to search (`chainforge completions view`): docs/lineage.md."""
    trackers: list[Annotated[str, OneOf(TRACKERS)]] = Field(default_factory=list)
    """Where each row of a training step goes as well: docs/watch.md. Keys stay in the environment."""
    locked: bool = False
    """true: stop where plugins.lock.json is not the committed one, instead of rewriting it."""


def check_precision(precision: str, device: str) -> None:
    """Raise ChainForgeError where a device of that type does not compute in that precision."""
    if precision == "float16" and device == "cpu":
        raise ChainForgeError(
            "run.precision float16 needs a GPU: a CPU has no products in float16, and would emulate each",
            "set run.precision to float32, or to bfloat16 where the processor has instructions for it",
        )
