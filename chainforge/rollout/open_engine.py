"""The engine that the settings name."""

from chainforge.config.engine import EngineSettings
from chainforge.models.checkpoint import Policy
from chainforge.rollout.engine import Engine
from chainforge.rollout.local_engine import LocalEngine
from chainforge.rollout.shared_engine import SharedEngine
from chainforge.run.step import Step


def open_engine(
    settings: EngineSettings, policy: Policy, step: Step, *, frozen: bool = False, apart: bool = False
) -> Engine:
    """The caller closes it. `frozen` and `apart`: see `LocalEngine`."""
    if settings.kind == "vllm":
        raise NotImplementedError
    return SharedEngine(LocalEngine(policy, step, frozen=frozen, apart=apart), step.world)
