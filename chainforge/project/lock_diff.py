"""What differs between two locks, in words: which plugin, library, file or code, and for which steps."""

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chainforge.errors import ChainForgeError
from chainforge.project.graph import LOCK
from chainforge.project.lock_entry import Lock, parse_lock, read_lock


def lock_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[str]]:
    """The steps that a change re-runs, by the change."""
    steps: dict[str, list[str]] = {}
    old, new = dict(_entries(before)), dict(_entries(now))
    for step in [*old, *(name for name in new if name not in old)]:
        for change in _entry_changes(old.get(step, {}), new.get(step, {})):
            steps.setdefault(change, []).append(step)
    return steps


def in_lines(changes: Mapping[str, list[str]]) -> list[str]:
    """One line per change, the steps that it re-runs in brackets."""
    return [f"{change} ({', '.join(steps)})" for change, steps in changes.items()]


def committed_lock(revision: str = "HEAD") -> Lock:
    """plugins.lock.json as it is committed; without git, HEAD is as it lies here."""
    return compared_lock(revision)[0]


def compared_lock(revision: str) -> tuple[Lock, str | None]:
    """`committed_lock`, and whose it is: the revision's, or None's, as it lies here."""
    command = ("git", "show", f"{revision}:./{LOCK}")
    try:
        shown = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
    except OSError as error:
        raise ChainForgeError(
            f"git cannot be started: {error.strerror}", "install git, or correct PATH"
        ) from error
    if shown.returncode == 0:
        try:
            return parse_lock(shown.stdout), revision
        except ValueError as error:
            raise ChainForgeError(
                f"{LOCK} of {revision} cannot be read: {error}",
                f"run dvc repro, then: git add {LOCK} dvc.lock && git commit",
            ) from error
    if "not a git repository" in shown.stderr:
        if revision == "HEAD" and (lock := read_lock(Path(LOCK))):
            return lock, None
        raise ChainForgeError(
            f"this is not a git repository, so there is no {LOCK} of {revision}",
            f"name no revision: then it is {LOCK} as it lies here, which dvc repro writes",
        )
    raise ChainForgeError(
        f"there is no {LOCK} in {revision}: {shown.stderr.strip() or 'nothing was committed'}",
        f"run dvc repro, then: git add {LOCK} dvc.lock && git commit",
    )


def _entries(lock: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, node in lock.items():
        if isinstance(node, Mapping) and "code" in node:
            yield f"{at}{name}", node
        elif isinstance(node, Mapping):
            yield from _entries(node, f"{at}{name}.")


def _entry_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    if not old or not new:
        yield "a new step" if new else "a step that is gone"
        return
    if old["code"] != new["code"]:
        yield "code of ChainForge changed"
    for kind, changed in (("plugins", _plugin), ("files", _file), ("env", _version)):
        before, now = old.get(kind, {}), new.get(kind, {})
        for name in [*before, *(key for key in now if key not in before)]:
            if before.get(name) != now.get(name):
                yield f"{name}: {changed(before.get(name), now.get(name))}"


def _plugin(old: Mapping[str, str] | None, new: Mapping[str, str] | None) -> str:
    if old is None or new is None:
        return f"{_origin(new or old or {})} is {'selected now' if new else 'not selected any more'}"
    if _origin(old) == _origin(new):
        return f"{_origin(new)}: its code changed"
    if old.get("distribution", "") == new.get("distribution"):
        return f"{_origin(old)} -> {new['version']}"
    return f"{_origin(old)} -> {_origin(new)}"


def _origin(plugin: Mapping[str, str]) -> str:
    return plugin.get("source") or f"{plugin['distribution']} {plugin['version']}"


def _file(old: str | None, new: str | None) -> str:
    return "its content changed" if old and new else "an input now" if new else "not an input any more"


def _version(old: str | None, new: str | None) -> str:
    return f"{old or 'not watched'} -> {new or 'not watched'}"
