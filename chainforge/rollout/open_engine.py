"""The engine that the settings name."""

from collections.abc import Callable

import torch

from chainforge.config.adapter import AdapterSettings
from chainforge.config.engine import EngineSettings
from chainforge.learner.fully_sharded import splits_weights
from chainforge.models.checkpoint import Policy
from chainforge.rollout.engine import Engine
from chainforge.rollout.local_engine import LocalEngine
from chainforge.rollout.shared_engine import SharedEngine
from chainforge.rollout.vllm.engine import VllmEngine
from chainforge.run.step import Step


def open_engine(
    settings: EngineSettings,
    policy: Policy,
    step: Step,
    *,
    frozen: bool = False,
    apart: bool = False,
    max_len: Callable[[], int] | None = None,
    adapter: AdapterSettings | None = None,
) -> Engine:
    """The caller closes it. `frozen` and `apart`: see `LocalEngine`; `adapter`: see `VllmEngine`. `max_len`
    counts the tokens of the longest prompt with its completion, where that is asked for."""
    if settings.kind == "vllm":
        length = max_len() if max_len else None
        return VllmEngine(policy, step, max_len=length, frozen=frozen, adapter=adapter)
    return SharedEngine(LocalEngine(policy, step, frozen=frozen, apart=apart), step.world)


def samples_apart(settings: EngineSettings | None, adapter: AdapterSettings | None, step: Step) -> bool:
    """Whether our own sampler has a copy of the weights beside the learner: see `LocalEngine`. None samples
    where there are no settings."""
    here = settings is not None and settings.kind == "local"
    return here and (splits_weights(step) or adapter is not None)


def device_of_checkpoint(settings: EngineSettings, device: torch.device) -> torch.device:
    """Where a checkpoint is loaded that is sampled from alone: vLLM's servers have a copy of their own."""
    return torch.device("cpu") if settings.kind == "vllm" else device
