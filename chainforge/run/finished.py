"""When a finished resume folder may go: once dvc.lock has the result.

Until then it is needed: who kills dvc between the end of a step and its commit loses minutes, not hours.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

FINISHED = "finished"  # an empty file that marks such a folder
INPUTS = "inputs.json"


def sweep(root: Path, dvc_lock: Path = Path("dvc.lock")) -> None:
    """Remove every finished folder whose result DVC has recorded."""
    finished = list(finished_folders(root))
    if not finished or not dvc_lock.is_file():
        return
    stages = YAML(typ="safe", pure=True).load(dvc_lock.read_text(encoding="utf-8")).get("stages", {})
    for folder in finished:
        if recorded(json.loads((folder / INPUTS).read_text(encoding="utf-8")), stages):
            shutil.rmtree(folder)


def finished_folders(root: Path) -> Iterator[Path]:
    """The resume folders of steps that ended well."""
    return (mark.parent for mark in sorted(root.glob(f"*/{FINISHED}")))


def recorded(inputs: Mapping[str, Any], stages: Mapping[str, Any]) -> bool:
    """Whether dvc.lock has this step with these settings, this lock and the files as they are now."""
    entry = stages.get(inputs["step"], {})
    params = entry.get("params", {})
    made = {out["path"]: out.get("md5") for stage in stages.values() for out in stage.get("outs", [])}
    return (
        params.get("params.yaml") == inputs["params"]
        and list(params.get("plugins.lock.json", {}).values()) == [inputs["lock"]]
        and all(made.get(dep["path"], dep.get("md5")) == dep.get("md5") for dep in entry["deps"])
    )
