"""What a plugin makes of its settings, and what it yields: checked, and every error told by its name."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from chainforge.containment import Raised, contain, no_leaving
from chainforge.errors import ChainForgeError, describe
from chainforge.hookspecs import ApiTeacher
from chainforge.plugins.entry import Entry
from chainforge.plugins.settings import plugin_settings
from chainforge.providers.reasoning import without_reasoning
from chainforge.records import Prompt, check_record
from chainforge.reward_options import RewardOptions

NEEDED = {"teachers": ("generate",), "student_models": ("load",)}


def make_component(entry: Entry, settings: Mapping[str, Any]) -> Any:
    """The teacher or student model that a factory makes. Raises ChainForgeError where it does not."""
    arguments = plugin_settings(entry, settings)
    try:
        component = _call(entry, arguments)
        fits = isinstance(component, ApiTeacher) or all(
            callable(getattr(component, name, None)) for name in NEEDED[entry.role]
        )
    except Raised as error:
        raise ChainForgeError(
            f"{entry.who} cannot be made with these settings: {describe(error.cause)}",
            f"correct its settings in params.yaml, or {_mend(entry)}",
        ) from error.cause
    except ChainForgeError:
        raise
    except Exception as error:  # its properties are a stranger's code
        raise ChainForgeError(f"{entry.who}: {describe(error)}", _mend(entry)) from error
    if not fits:
        raise ChainForgeError(
            f"{entry.who} makes {type(component).__name__}, which has no `{NEEDED[entry.role][0]}`",
            _mend(entry),
        )
    return component


def make_reward_function(entry: Entry, settings: Mapping[str, Any]) -> Callable[..., Any]:
    """What is called with completions: what was registered, or what it makes of the reward's settings."""
    if not RewardOptions.of(entry.options).factory:
        if settings:
            raise ChainForgeError(
                f"{entry.who} has no settings, and reward_settings has {min(settings)!r} for it",
                "take them out; a reward with settings is registered with factory=True",
            )
        reward: Callable[..., Any] = entry.component
        return reward
    try:
        made = _call(entry, plugin_settings(entry, settings))
    except Raised as error:
        raise ChainForgeError(
            f"{entry.who} cannot be made with these settings: {describe(error.cause)}",
            f"correct reward_settings.{entry.name} in params.yaml, or {_mend(entry)}",
        ) from error.cause
    if not callable(made):
        raise ChainForgeError(
            f"{entry.who} makes {type(made).__name__}, which cannot be called", _mend(entry)
        )
    return made  # type: ignore[no-any-return]


def prompts_from(
    entry: Entry, settings: Mapping[str, Any], *, split: str, n: int, seed: int
) -> Iterator[Prompt]:
    """What a prompt source yields, at most `n`: whole prompts only. Raises ChainForgeError for the rest."""
    arguments, count = plugin_settings(entry, settings), 0
    try:
        given = _call(entry, arguments | {"split": split, "n": n, "seed": seed})
        if not isinstance(given, Iterable) or isinstance(given, str | Mapping):
            raise ChainForgeError(f"{entry.who} gives {type(given).__name__}, not prompts", _mend(entry))
        for prompt in itertools.islice(contain(given, entry.who), n):
            count += 1
            yield _whole(prompt)
    except Raised as error:
        raise ChainForgeError(
            f"{entry.who} raised after {count} {split} prompts: {describe(error.cause)}", _mend(entry)
        ) from error.cause
    except ValueError as error:
        raise ChainForgeError(f"{entry.who}, {split} prompt {count}: {error}", _mend(entry)) from error


def _whole(prompt: Any) -> Prompt:
    """A prompt whose columns can be keyword arguments of a reward, without what an assistant thought in it.

    Raises ValueError.
    """
    checked = check_record(Prompt, prompt)
    if not checked.id:
        raise ValueError("field 'id' is empty")
    for name in checked.columns:
        if not isinstance(name, str):
            raise ValueError(f"a column is called {name!r:.40}, which is no text")  # noqa: TRY004 - one kind
    return replace(checked, messages=without_reasoning(checked.messages))


def _call(entry: Entry, arguments: Mapping[str, Any]) -> Any:
    try:
        with no_leaving():
            return entry.component(**arguments)
    except (KeyboardInterrupt, ChainForgeError):
        raise
    except BaseException as error:
        raise Raised(error) from error


def _mend(entry: Entry) -> str:
    return f"mend the plugin; chainforge plugins check {entry.name} tries it"
