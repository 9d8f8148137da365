"""A reward as params.yaml selects it, and the errors that name it."""

import os
import sysconfig
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chainforge.errors import ChainForgeError, text_of
from chainforge.records import Prompt
from chainforge.reward_options import RewardOptions
from chainforge.scoring.takes import check_columns

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

    def check(
        self, prompts: Sequence[Prompt], columns: Collection[str], checked: set[tuple[str, str | None]]
    ) -> None:
        """Raise ChainForgeError where this reward cannot work here, or not on these prompts.

        `checked` remembers what has been asked, so that asking in each step of a run costs nothing.
        """
        if (self.name, None) not in checked:
            self.check_ready()
            checked.add((self.name, None))
        check_columns(self.who, self.function, self.options, columns, "the prompts")
        if (check_answer := self.options.check_answer) is None:
            return
        wrong: dict[str, str] = {}
        for prompt in prompts:
            if prompt.answer is not None and (self.name, prompt.answer) not in checked:
                if reason := check_answer(prompt.answer):
                    wrong[prompt.id] = f"the answer {prompt.answer!r:.120} of prompt {prompt.id!r}: {reason}"
                else:
                    checked.add((self.name, prompt.answer))
        if wrong:
            first, *more = wrong
            others = f"; nor those of {len(more)} more: {', '.join(more[:20])}" if more else ""
            raise ChainForgeError(
                f"{self.who} cannot use {wrong[first]}{others}",
                "correct the answer, leave the prompt out, or choose another reward",
            )

    def check_ready(self) -> None:
        """Raise ChainForgeError where this reward cannot work on this machine."""
        if self.options.ready:
            self.options.ready()

    def took_too_long(self, seconds: float, count: int) -> CallFailed:
        """The error for a call that had to be given up."""
        own = "each_s" if self.options.each_s else "timeout_s" if self.options.timeout_s else ""
        return CallFailed(
            f"{self.who} did not return within {seconds:g} s for {counted(count)}",
            f"make it faster, or raise {f'its {own}' if own else 'runtime.reward_timeout_s'}",
        )

    def gives_up(self, seconds: float) -> str:
        """The last words of a program that a reward neither gives back nor lets go of."""
        return (
            f"{self.who} did not return within {seconds:g} s, and does not stop either: the program ends\n"
            '  -> run it in a process of its own, which can be killed: register(…, isolation="process"). '
            "Finished work is kept"
        )


def counted(completions: int) -> str:
    """Their number, as errors say it."""
    return f"{completions} completion{'' if completions == 1 else 's'}"


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
