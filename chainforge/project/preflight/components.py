"""Plugins with their settings: made once, so that a value that cannot work is told before any work."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chainforge.config.loading import load_settings
from chainforge.config.verbs import VERBS
from chainforge.errors import ChainForgeError, describe
from chainforge.plugins import (
    Entry,
    Plugins,
    make_component,
    make_reward_function,
    plugin_settings,
    role_title,
)
from chainforge.project.graph import GraphStep
from chainforge.project.lock_entry import selections
from chainforge.project.preflight.input_files import check_there, check_watched, made_by, made_in
from chainforge.reward_options import RewardOptions

PATH = re.compile(r"[\w.~+-]*(/[\w.+-]+)+/?")
HOME = ("data", "checkpoints", "inputs")  # where a project's own models lie


def check_components(graph: Mapping[str, GraphStep], plugins: Plugins) -> None:
    """Raise ChainForgeError for settings that their plugin refuses, and for files that are not there."""
    tried: set[str] = set()
    made = made_in(graph)
    for step in graph.values():
        for role, choice in selections(load_settings(VERBS[step.verb], *step.sections)):
            entry = plugins.pick(role, choice.plugin)
            if role == "rewards" and not RewardOptions.of(entry.options).factory:
                make_reward_function(entry, choice.settings)  # which refuses settings
                continue
            arguments = plugin_settings(entry, choice.settings)
            for name, path in files(role, arguments):
                what = f"{step.name}: {role_title(role)} {entry.name}: {name} names {path}"
                check_there(what, path, made)
                if made_by(path, made):
                    check_watched(step, f"{role_title(role)} {entry.name}: {name}", path)
            split = "eval" if step.verb == "bench" else "train"
            if (key := f"{role} {split} {choice!r}") not in tried:
                tried.add(key)
                make(entry, choice.settings, split)


def make(entry: Entry, settings: Mapping[str, Any], split: str) -> None:
    """Make the component and forget it. Raises ChainForgeError, whatever the plugin raises."""
    try:
        if entry.role == "prompt_sources":
            entry.component(**plugin_settings(entry, settings), split=split, n=1, seed=0)
        else:
            (make_reward_function if entry.role == "rewards" else make_component)(entry, settings)
    except ChainForgeError as error:
        named = error.problem if entry.who in error.problem else f"{entry.who}: {error.problem}"
        raise ChainForgeError(named, error.fix) from error
    except Exception as error:
        raise ChainForgeError(
            f"{entry.who} does not take these settings: {describe(error)}",
            f"correct them in params.yaml, or mend the plugin: chainforge plugins check {entry.name}",
        ) from error


def files(role: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """The settings that name a file or folder; a model's text does where it looks like no hub name."""
    for name, value in arguments.items():
        if isinstance(value, Path):
            yield name, value
        elif role == "student_models" and isinstance(value, str) and looks_like_path(value):
            yield name, Path(value)


def looks_like_path(text: str) -> bool:
    """`./model`, `/models/qwen`, `inputs/qwen`, but not `Qwen/Qwen2.5-0.5B`."""
    if not PATH.fullmatch(text):
        return False
    return text[0] in "./~" or text.count("/") > 1 or text.partition("/")[0] in HOME
