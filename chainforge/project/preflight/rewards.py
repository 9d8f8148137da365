"""Rewards held against the way they are called: an option that was forgotten, a column that no prompt has."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from chainforge.config.verbs import VERBS
from chainforge.errors import ChainForgeError
from chainforge.jsonl import read_rows
from chainforge.plugins import Entry, Plugins, make_reward_function
from chainforge.project.graph import GraphStep, dependencies, param, settings_of
from chainforge.project.lock_entry import selections
from chainforge.project.recorded import read_recorded
from chainforge.reward_options import RewardOptions
from chainforge.run.progress import say
from chainforge.scoring.takes import check_columns, missing_columns

PROMPTS = (Path("data/prompts"), Path("data/benches"))
LOOKED_AT = 1000  # prompts of a file


def check_rewards(graph: Mapping[str, GraphStep], plugins: Plugins) -> None:
    """Raise ChainForgeError for a reward that cannot work here, as it is registered, or on these prompts.

    Where the prompts are still to be made, a column that it needs is said, and looked for when a step starts.
    """
    for step in graph.values():
        files = [path for path in dependencies(step) if path.parent in PROMPTS and path.is_file()]
        settings = settings_of(VERBS[step.verb], step.name)
        for name in getattr(settings, "reward_settings", {}):
            plugins.pick("rewards", name)  # which refuses a name that nobody has
        for role, choice in selections(settings):
            if role == "rewards":
                _check(step, plugins.pick(role, choice.plugin), choice.settings, files, graph)


def _check(
    step: GraphStep,
    entry: Entry,
    settings: Mapping[str, Any],
    files: list[Path],
    graph: Mapping[str, GraphStep],
) -> None:
    options = RewardOptions.of(entry.options)
    if options.ready:
        options.ready()
    function = make_reward_function(entry, settings)
    missing = missing_columns(entry.who, function, options)
    if not missing:
        return
    columns = {name for path in files for name in _columns(path)}
    if missing == [name for name in missing if name in columns]:
        return
    try:
        check_columns(entry.who, function, options, columns, f"the prompts of {step.name}")
    except ChainForgeError as error:
        forgotten = not any(f"needs the column {name!r}" in error.problem for name in missing)
        if forgotten or (files and _are_current(graph)):
            raise
        say(f"{error.problem}; unless the prompts that are still to be made have it, {step.name} will stop")


def _columns(path: Path) -> Iterator[str]:
    for _, row in islice(read_rows(path), LOOKED_AT):
        if isinstance(row, Mapping):
            yield from row.get("columns") or ()


def _are_current(graph: Mapping[str, GraphStep]) -> bool:
    """Whether the prompts that are there are those of the present settings, as far as dvc.lock tells."""
    try:
        recorded = read_recorded()
        return all(
            value == param(section)
            for step in graph.values()
            if step.verb in ("prompts", "bench")
            for section, value in recorded[step.name]["params"]["params.yaml"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, ChainForgeError):
        return False
