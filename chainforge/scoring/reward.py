"""A reward as params.yaml selects it, and the errors that name it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chainforge.errors import ChainForgeError
from chainforge.hookspecs import RewardOptions


class CallFailed(ChainForgeError):
    """A call that gave no answer: it raised, took too long, or ended its process. `on_error` is for these."""


@dataclass(frozen=True, slots=True)
class WeightedReward:
    """One reward. `load` finds the function again in another process; it must pickle."""

    name: str
    weight: float
    function: Callable[..., Any]
    source: str
    options: RewardOptions = field(default_factory=RewardOptions)
    load: Callable[[], Callable[..., Any]] | None = None

    def __post_init__(self) -> None:
        if self.options.isolation == "process" and self.load is None:
            raise ValueError(f"{self.who} cannot run in a process of its own without `load`")

    @property
    def who(self) -> str:
        """How errors name it: the reward, and the plugin with its version."""
        return f"reward {self.name!r} ({self.source})"

    def took_too_long(self, seconds: float, count: int) -> CallFailed:
        """The error for a call that had to be given up."""
        own = self.options.timeout_s is not None
        return CallFailed(
            f"{self.who} did not return within {seconds:g} s for {count} completions",
            f"make it faster, or raise {'its timeout_s' if own else 'runtime.reward_timeout_s'}",
        )


def raised(who: str, error: BaseException) -> CallFailed:
    """The error for a reward that raised."""
    if isinstance(error, ChainForgeError):
        return CallFailed(f"{who} raised {type(error).__name__}: {error.problem}", error.fix)
    return CallFailed(
        f"{who} raised {type(error).__name__}: {error}",
        "a reward must not raise on odd text: return 0.0, or None where it does not apply",
    )
