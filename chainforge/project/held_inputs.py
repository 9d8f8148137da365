"""Gather the inputs of a step: its settings, its part of the lock, and the files that it reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from pydantic import BaseModel

from chainforge.errors import ChainForgeError
from chainforge.plugins import Plugins
from chainforge.project.claims import claim
from chainforge.project.file_digests import MISSING, digest_path
from chainforge.project.graph import dependencies, param, step_of
from chainforge.project.lock_entry import Lock, code_digest, held_lock, lock_entry, locked_entry
from chainforge.run.fingerprint import Inputs, describe_change, differences


@contextmanager
def hold_inputs(name: str, settings: BaseModel, plugins: Plugins) -> Iterator[Inputs]:
    """The inputs of a step. Raises ChainForgeError where they are not those that DVC will record.

    That is so where code or plugins are not what the step `lock` wrote down. And where anything is not the
    same at the end of the block: only then DVC looks, and would record the result under what did not make it.
    """
    before = inputs_of(name, settings, plugins)
    was_locked = locked_entry(held_lock(), step_of(name)) is not None
    claim(step_of(name))
    yield before
    now = _gather(name, _entry_at_end(name) if was_locked else dict(before.lock))
    gone = [path for path, digest in now.files.items() if digest == MISSING != before.files.get(path)]
    if gone:
        raise ChainForgeError(
            f"{name}: while it ran, its inputs vanished: {', '.join(gone)}",
            f"find out what removes them; what a step has made, dvc checkout {' '.join(gone)} restores",
        )
    if changed := [describe_change(*change) for change in differences(asdict(before), asdict(now))]:
        raise ChainForgeError(
            f"{name}: while it ran, its inputs changed: {', '.join(changed)}",
            "run the same command again: it takes the new ones. If you set them back, it goes on instead",
        )


def _entry_at_end(name: str) -> Lock:
    """What DVC is about to record."""
    return locked_entry(held_lock(), step_of(name)) or {}


def inputs_of(name: str, settings: BaseModel, plugins: Plugins) -> Inputs:
    """The inputs of a step as they are now. Raises where the lock is not of this code."""
    return _gather(name, _check_entry(name, settings, plugins))


def _gather(name: str, entry: Lock) -> Inputs:
    step = step_of(name)
    files = {str(path): digest_path(path) for path in dependencies(step)}
    return Inputs(name, {section: param(section) for section in ("run", *step.sections)}, entry, files)


def _check_entry(name: str, settings: BaseModel, plugins: Plugins) -> Lock:
    """The step's part of the lock as it would be made now, which must be what the step `lock` wrote down."""
    step = step_of(name)
    entry = lock_entry(step, settings, plugins, code_digest(step.verb))
    written = locked_entry(held_lock(), step)
    if written not in (None, entry):
        what = ", ".join(key for key, _, _ in differences(written or {}, entry))
        raise ChainForgeError(
            f"{name}: edited since the step `lock` ran: {what}", "run dvc repro again: it locks, then runs"
        )
    return entry
