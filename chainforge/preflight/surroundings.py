"""Whether everything around a model is there: keys, servers, sandbox, packages, disk. No model is loaded."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chainforge.config.collect import CollectSettings
from chainforge.config.run import RuntimeSettings
from chainforge.config.verbs import VERBS
from chainforge.errors import ChainForgeError
from chainforge.hookspecs import ApiTeacher
from chainforge.plugins import Plugins, make_component
from chainforge.preflight.estimate import Estimate, Finding
from chainforge.project.graph import GraphStep, outputs, settings_of
from chainforge.project.lock_entry import selections
from chainforge.project.preflight.project import check_project

CONNECT_S = 3.0


def check_surroundings(
    steps: Sequence[GraphStep], plugins: Plugins, runtime: RuntimeSettings
) -> Iterator[Finding]:
    """What stops the steps before they begin."""
    yield from _found(lambda: check_project(plugins, runtime))
    for step in steps:
        settings = settings_of(VERBS[step.verb], step.name)
        if isinstance(settings, CollectSettings) and not all(path.exists() for path in outputs(step)):
            yield from _check_teacher(step, settings, plugins)
        yield from _check_keys(step, settings)
        if getattr(getattr(settings, "engine", None), "kind", "local") == "vllm":
            for url in runtime.vllm.urls:
                yield from _check_reachable(f"{step.name}: runtime.vllm.urls", url)


def _check_teacher(step: GraphStep, settings: CollectSettings, plugins: Plugins) -> Iterator[Finding]:
    """Its client is made, which asks for the key, and nothing is sent."""
    entry = plugins.pick("teachers", settings.teacher.plugin)
    teacher = make_component(entry, settings.teacher.settings)
    if not isinstance(teacher, ApiTeacher):
        return
    problems = list(_found(lambda: teacher.client(connections=1), f"{step.name}: "))
    yield from problems
    if not problems and isinstance(url := getattr(teacher, "url", None), str):
        yield from _check_reachable(f"{step.name}: its teacher", url)


def _check_keys(step: GraphStep, settings: Any) -> Iterator[Finding]:
    """Variables that the settings of rewards name as keys. Only the name is told, never the value."""
    for role, choice in selections(settings):
        for name, variable in choice.settings.items():
            is_key = role == "rewards" and name.endswith("key_env") and isinstance(variable, str)
            if is_key and not os.environ.get(variable, "").strip():
                problem = f"{step.name}: the environment variable {variable} is not set ({choice.plugin})"
                yield Finding(problem, f"export {variable}=… in the shell", loss=1.0, stops=True)


def _check_reachable(who: str, url: str) -> Iterator[Finding]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), CONNECT_S).close()
    except OSError as error:
        yield Finding(
            f"{who}: {parts.hostname}:{port} does not answer ({error.strerror or error})",
            "start the server, or mend its address or the network",
            loss=1.0,
            stops=True,
        )


def check_disk(estimates: Sequence[Estimate], folder: Path = Path()) -> Iterator[Finding]:
    """Whether what the steps will write fits. DVC's cache links to checkpoints, where the disk can do so."""
    needed = bytes_on_disk(estimates)
    free = shutil.disk_usage(folder).free
    if needed > free:
        yield Finding(
            f"the steps need {needed / 1e9:.1f} GB of disk, and {free / 1e9:.1f} GB are free",
            "free some (chainforge gc), or put the project on a larger disk",
            loss=1.0,
            stops=True,
        )


def bytes_on_disk(estimates: Sequence[Estimate]) -> float:
    """All checkpoints, and the saved states of the one step that runs at a time."""
    saves = max((estimate.saves for estimate in estimates), default=0.0)
    return sum(estimate.checkpoint for estimate in estimates) + saves


def _found(check: Callable[[], object], where: str = "") -> Iterator[Finding]:
    try:
        check()
    except ChainForgeError as error:
        yield Finding(where + error.problem, error.fix, loss=1.0, stops=True)
