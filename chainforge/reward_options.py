"""How a reward is called: the options with which a plugin registers it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from chainforge.errors import unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardOptions:
    """How a reward is called; given at registration, and checked there.

    - `conversational`: prompts as message lists, completions as `[{"role": "assistant", "content": …}]`.
    - `per_sample`: one call per completion, as verifiers does, with singular names: `prompt`, `completion`,
      and `answer`, `completion_ids` and every column as the value for this one; besides, `info` (the prompt's
      columns as a dict, or its column of that name) and `state` (a fresh dict). It returns a number or None.
    - `isolation`: "process" runs the reward in a process of its own, which can be killed: for code that
      may hang or crash. "inline" runs it here, under a timer.
    - `timeout_s`: seconds that one call for all completions may take, instead of runtime.reward_timeout_s.
    - `each_s`: seconds that one completion may take, in place of a limit for all. Each is a call of its own,
      in several processes side by side, and `on_error` is about that one: needs isolation "process".
    - `on_error`: what becomes of a call that raises, takes too long or crashes. "raise" stops the run;
      "none" makes it None for all completions of the call, says so once, and counts it in the log.
    - `keys`: the environment variables that its own process gets though they hold keys.
    - `factory`: what is registered makes the reward, from settings of its own: keyword-only arguments,
      checked against their annotations, that `reward_settings` in params.yaml has.
    - `reading`: the answer of a summary in a normal form, None if it has none: what maj@k votes on.
    - `ready`: raises ChainForgeError where the reward cannot work here, such as for want of a package. It is
      quick: `lock` asks, and each step before any work.
    - `prepare`: called once in the reward's own process before its first call, for imports that take long and
      models; not counted as time of a call: needs isolation "process".
    - `check_answer`: what is wrong with a reference answer, None if nothing is: asked before any work.
    """

    conversational: bool = False
    per_sample: bool = False
    isolation: Literal["inline", "process"] = "inline"
    timeout_s: float | None = None
    each_s: float | None = None
    on_error: Literal["raise", "none"] = "raise"
    keys: tuple[str, ...] = ()
    factory: bool = False
    reading: Callable[[str], str | None] | None = None
    ready: Callable[[], None] | None = None
    prepare: Callable[[], None] | None = None
    check_answer: Callable[[str], str | None] | None = None

    def __post_init__(self) -> None:
        yes_or_no, ways, ends = (True, False), ("inline", "process"), ("raise", "none")
        names = ("conversational", "per_sample", "factory")
        allowed: dict[str, tuple[Any, Any]] = dict.fromkeys(names, yes_or_no)
        for option, values in (allowed | {"isolation": ways, "on_error": ends}).items():
            if getattr(self, option) not in values:
                wanted = " or ".join(map(repr, values))
                raise ValueError(f"{option} must be {wanted}, not {getattr(self, option)!r}")
        if not (isinstance(self.keys, tuple) and all(isinstance(key, str) for key in self.keys)):
            raise ValueError(f"keys must be a tuple of names, not {self.keys!r}")
        for option in ("timeout_s", "each_s"):
            seconds = getattr(self, option)
            if seconds is not None and not (type(seconds) in (int, float) and 0 < seconds < math.inf):
                raise ValueError(f"{option} must be a number of seconds above 0, not {seconds!r}")
        for option, what in (
            ("reading", " of a text"),
            ("ready", ""),
            ("prepare", ""),
            ("check_answer", " of a text"),
        ):
            function = getattr(self, option)
            if function is not None and not callable(function):
                raise ValueError(f"{option} must be a function{what}, not {function!r}")
        for option in ("each_s", "prepare"):
            if getattr(self, option) is not None and self.isolation != "process":
                raise ValueError(f'{option} is for a reward with a process of its own: isolation="process"')

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """The options by name. Raises TypeError for one that there is not."""
        known = [option.name for option in fields(cls)]
        for option in options:
            if option not in known:
                raise TypeError(str(unknown("option of a reward", option, known)).replace("\n  ->", ";"))
        return cls(**options)
