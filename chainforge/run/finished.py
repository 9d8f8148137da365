"""When a finished resume folder may go: once dvc.lock has the result.

Until then it is needed: who kills dvc between the end of a step and its commit loses minutes, not hours.
"""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from chainforge.errors import ChainForgeError
from chainforge.project.recorded import outputs_of, read_recorded

FINISHED = "finished"  # an empty file that marks such a folder
INPUTS = "inputs.json"
GONE = ".gone"  # the end of a folder's name while it is being removed


def sweep(root: Path) -> None:
    """Remove every finished folder whose result DVC has recorded."""
    for torn in root.glob(f"*{GONE}"):
        shutil.rmtree(torn, ignore_errors=True)
    finished = [mark.parent for mark in sorted(root.glob(f"*/{FINISHED}"))]
    if not finished:
        return
    try:
        entries = read_recorded()
    except (OSError, ChainForgeError):  # torn: DVC says so
        return
    for folder in finished:
        # another process is sweeping too (FileNotFoundError), or an entry has another shape: no record
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            if recorded(json.loads((folder / INPUTS).read_text(encoding="utf-8")), entries):
                discard(folder)


def discard(folder: Path) -> None:
    """Remove a resume folder: at once for every other process, even if this one is killed half-way."""
    gone = folder.with_name(folder.name + GONE)
    with suppress(FileNotFoundError):  # another process was quicker
        os.replace(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)


def recorded(inputs: Mapping[str, Any], entries: Mapping[str, Any]) -> bool:
    """Whether dvc.lock has this step with these settings, this lock and the files as they are now."""
    entry = entries.get(inputs["step"], {})
    params = entry.get("params", {})
    made = outputs_of(entries)
    return (
        params.get("params.yaml") == inputs["params"]
        and list(params.get("plugins.lock.json", {}).values()) == [inputs["lock"]]
        and all(made.get(dep["path"], dep.get("md5")) == dep.get("md5") for dep in entry["deps"])
    )
