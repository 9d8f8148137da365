"""Whether a checkpoint is what `dvc repro` would make now, and if not, why."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from chainforge.errors import ChainForgeError
from chainforge.project.graph import read_graph


def why_stale(steps: Iterable[str]) -> list[str]:
    """What has changed since these steps ran, one line each; nothing where none of them would run again.

    DVC compares settings and files with dvc.lock. That the code or a plugin is another one it learns only
    when its step `lock` has run, so plugins.lock.json is compared with what that step would write.
    """
    from chainforge.plugins import load_plugins
    from chainforge.project.lock import make_lock
    from chainforge.project.lock_diff import lock_changes
    from chainforge.project.lock_entry import read_lock

    names, graph = list(steps), read_graph()
    gone = [f"{name}: dvc.yaml has no such step" for name in names if name not in graph]
    keys = {graph[name].lock_key: name for name in names if name in graph}
    changes = lock_changes(read_lock(), make_lock(load_plugins()))
    code = [f"{keys[key]}: {change}" for change, changed in changes.items() for key in changed if key in keys]
    return [*gone, *dict.fromkeys(code), *_by_dvc(names)]


def _by_dvc(names: list[str]) -> Iterator[str]:
    """What `dvc status` says about these steps."""
    command = [sys.executable, "-P", "-m", "dvc", "status", "--json", *names]
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace")
    try:
        said: Mapping[str, Any] = json.loads(ended.stdout)
    except ValueError:
        reason = (ended.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise ChainForgeError(
            f"dvc status could not be asked: {reason}", "see what it says by hand: dvc status"
        ) from None
    for name, changes in said.items():
        yield from (f"{name}: {line}" for change in changes for line in _in_words(change))


def _in_words(change: Any) -> Iterator[str]:
    """One entry of `dvc status --json`: a text, or what changed by its kind and path."""
    if not isinstance(change, Mapping):
        yield str(change)
        return
    for kind, paths in change.items():
        for path, state in paths.items() if isinstance(paths, Mapping) else ():
            if isinstance(state, Mapping):  # of a file of settings: each with what became of it
                yield from (f"{key} in {path} is {how}" for key, how in state.items())
            else:
                yield f"{path} ({kind.removeprefix('changed ')}) is {state}"
