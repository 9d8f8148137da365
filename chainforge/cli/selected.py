"""Which steps select which plugin, and with which settings: what dvc.yaml and params.yaml say."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainforge.config.loading import PARAMS, load_settings
from chainforge.config.prompts import PromptsSettings
from chainforge.config.verbs import VERBS
from chainforge.jsonl import read_records
from chainforge.plugins import Entry, Plugins, prompts_from
from chainforge.project.graph import GRAPH, dependencies, outputs, read_graph, settings_of
from chainforge.project.lock_entry import selections
from chainforge.records import Prompt

FEW = 4  # prompts to ask a teacher about


@dataclass(frozen=True, slots=True)
class Selected:
    """One step's choice of one plugin."""

    step: str
    deps: tuple[Path, ...]
    role: str
    name: str
    settings: Mapping[str, Any]


def all_choices() -> list[Selected]:
    """Every choice of every step, in the order of the graph; none where there is no project."""
    if not (GRAPH.is_file() and PARAMS.is_file()):
        return []
    return [
        Selected(step.name, tuple(dependencies(step)), role, choice.plugin, choice.settings)
        for step in read_graph().values()
        for role, choice in selections(load_settings(VERBS[step.verb], *step.sections))
    ]


def users(choices: list[Selected], role: str, name: str) -> list[str]:
    """The steps that select a plugin; the cells of one stanza by its name alone if all of them do."""
    steps = list(dict.fromkeys(c.step for c in choices))
    mine = {c.step for c in choices if (c.role, c.name) == (role, name)}
    return list(dict.fromkeys(_short(step, steps, mine) for step in steps if step in mine))


def _short(step: str, steps: list[str], mine: set[str]) -> str:
    stanza, cell, _ = step.partition("@")
    cells = {other for other in steps if other.partition("@")[0] == stanza}
    return stanza if cell and len(cells) > 1 and cells <= mine else step


def usual_prompts(plugins: Plugins, choices: list[Selected], teacher: Entry) -> list[Prompt]:
    """A few of the prompts about which a step asks that teacher; made now if they are not there yet."""
    deps = [path for c in choices if (c.role, c.name) == (teacher.role, teacher.name) for path in c.deps]
    for path in deps:
        if path.suffix == ".jsonl" and path.is_file():
            return read_records(path, Prompt)[:FEW]
    if not deps:
        return []
    makers = [
        s for s in read_graph().values() if s.verb == "prompts" and not set(deps).isdisjoint(outputs(s))
    ]
    if not makers:
        return []
    wanted = settings_of(PromptsSettings, makers[0].name)
    source = plugins.pick("prompt_sources", wanted.source.plugin)
    return list(prompts_from(source, wanted.source.settings, split="train", n=FEW, seed=17))
