"""A reward as params.yaml selects it, and the errors that name it."""

import os
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chainforge.errors import ChainForgeError, text_of
from chainforge.hookspecs import RewardOptions

FIX = "a reward must not raise on odd text: return 0.0, or None where it does not apply"
ELSEWHERE = (  # code that no author of a reward wrote
    Path(__file__).resolve().parents[1],
    *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")),
)


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

    def gives_up(self, seconds: float) -> str:
        """The last words of a program that a reward neither gives back nor lets go of."""
        return (
            f"{self.who} did not return within {seconds:g} s, and does not stop either: the program ends\n"
            '  -> run it in a process of its own, which can be killed: register(…, isolation="process"). '
            "Finished work is kept"
        )


def reward_error(who: str, error: BaseException, hint: str = "") -> CallFailed:
    """The error for a reward that raised, with the line of the plugin in which it did."""
    said = error.problem if isinstance(error, ChainForgeError) else text_of(error)
    fix = error.fix if isinstance(error, ChainForgeError) else FIX
    place = f" ({where})" if (where := _place(error)) else ""
    return CallFailed(f"{who} raised {type(error).__name__}: {said}", (hint or fix) + place)


def _place(error: BaseException) -> str:
    """File and line of the innermost code that is not of ChainForge or a library."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        path = Path(frame.f_code.co_filename)
        if path.is_file() and not any(path.is_relative_to(folder) for folder in ELSEWHERE):
            return f"{os.path.relpath(path)}, line {line}"
    return ""
