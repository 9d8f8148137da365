"""Gather the inputs of a step: its settings, its part of the lock, and the files that it reads."""

from pydantic import BaseModel

from chainforge.digests import digest_whole
from chainforge.errors import ChainForgeError
from chainforge.graph import dependencies, param, step_of
from chainforge.lock_entry import Lock, code_digest, lock_entry, locked_entry, read_lock
from chainforge.plugins import Plugins
from chainforge.run.inputs import Inputs, differences


def inputs_of(name: str, settings: BaseModel, plugins: Plugins) -> Inputs:
    """The inputs of a step as they are now, files read whole. Raises as `check_lock` does."""
    entry = check_lock(name, settings, plugins)
    step = step_of(name)
    files = {str(path): digest_whole(path) for path in dependencies(step)}
    return Inputs(name, {section: param(section) for section in ("run", *step.sections)}, entry, files)


def check_lock(name: str, settings: BaseModel, plugins: Plugins) -> Lock:
    """The step's part of the lock as it would be made now.

    Raises ChainForgeError where that is not what the step `lock` wrote down: DVC would record the result
    under code or plugins that did not make it.
    """
    step = step_of(name)
    entry = lock_entry(step, settings, plugins, code_digest(step.verb))
    written = locked_entry(read_lock(), step)
    if written not in (None, entry):
        what = ", ".join(key for key, _, _ in differences(written or {}, entry))
        raise ChainForgeError(
            f"{name}: edited since the step `lock` ran: {what}", "run dvc repro again: it locks, then runs"
        )
    return entry
