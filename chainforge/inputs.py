"""Gather the inputs of a step: its settings, its part of the lock, and the files that it reads."""

from pydantic import BaseModel

from chainforge.digests import digest_whole
from chainforge.errors import ChainForgeError, unknown
from chainforge.graph import dependencies, param, read_graph
from chainforge.lock_entry import lock_entry, locked_entry, read_lock
from chainforge.plugins import Plugins
from chainforge.run.inputs import Inputs, differences


def inputs_of(name: str, settings: BaseModel, plugins: Plugins) -> Inputs:
    """The inputs of a step as they are now, files read whole.

    Raises ChainForgeError where its code or plugins are not those that the step `lock` wrote down: DVC
    would record the result under the wrong ones.
    """
    graph = read_graph()
    if name not in graph:
        raise unknown("step in dvc.yaml", name, graph)
    step = graph[name]
    entry, written = lock_entry(step, settings, plugins), locked_entry(read_lock(), step)
    if written is not None and written != entry:
        what = ", ".join(key for key, _, _ in differences(written, entry))
        raise ChainForgeError(
            f"{name}: edited since the step `lock` ran: {what}", "run dvc repro again: it locks, then runs"
        )
    sections = ["run", *step.sections]
    files = {str(path): digest_whole(path) for path in dependencies(step)}
    return Inputs(name, {section: param(section) for section in sections}, entry, files)
