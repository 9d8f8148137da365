"""plugins.lock.json: per step, what its code, its plugins and its input files are.

`dvc repro` watches a step's own subtree only, so that an edit re-runs exactly the steps that use it.
"""

from collections.abc import Mapping
from pathlib import Path

from chainforge.config.collector import collector_settings
from chainforge.config.loading import load_settings, read_params
from chainforge.config.verbs import VERBS
from chainforge.errors import ChainForgeError, unknown
from chainforge.plugins import Plugins
from chainforge.project.graph import LOCK, SHARED, UNWATCHED, GraphStep, read_graph
from chainforge.project.lock_entry import Lock, code_digest, lock_entry


def make_lock(plugins: Plugins, root: Path = Path()) -> Lock:
    """The whole lock. Validates every step's settings on the way, so that a mistake stops before any work."""
    graph = read_graph()
    check_sections(graph)
    collector_settings()
    lock: Lock = {}
    code: dict[str, str] = {}
    for step in graph.values():
        node, leaf = _place(lock, step)
        if step.verb not in VERBS:
            raise unknown("verb", step.verb, VERBS)
        settings = load_settings(VERBS[step.verb], *step.sections)
        if step.verb not in code:
            code[step.verb] = code_digest(step.verb, root)
        node[leaf] = lock_entry(step, settings, plugins, code[step.verb])
    return lock


def _place(lock: Lock, step: GraphStep) -> tuple[Lock, str]:
    """The mapping that gets the step's part, and its key there."""
    *path, leaf = step.lock_key.split(".")
    if not all((*path, leaf)):
        raise ChainForgeError(
            f"dvc.yaml: {step.name} watches {step.lock_key!r} of {LOCK}", "name the step's part there"
        )
    node = lock
    for key in path:
        node = node.setdefault(key, {})
        if "code" in node:
            break
    if "code" in node or "code" not in node.get(leaf, {"code": ""}):
        raise ChainForgeError(
            f"dvc.yaml: {step.name} watches {step.lock_key} of {LOCK}, of which another step has a part",
            "give each step a key of its own there",
        )
    return node, leaf


def check_sections(graph: Mapping[str, GraphStep]) -> None:
    """Raise ChainForgeError for a section that no step reads."""
    params = read_params()
    read = {section.split(".")[0] for step in graph.values() for section in step.sections}
    for section in params:
        if section not in read | SHARED | UNWATCHED:
            raise unknown("section of params.yaml", section, read | SHARED | UNWATCHED)
