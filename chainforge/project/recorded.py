"""dvc.lock as who looks back reads it: what each step ran with, and what it made."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chainforge.config.yaml import parse_mapping
from chainforge.errors import ChainForgeError

DVC_LOCK = Path("dvc.lock")


def read_recorded(path: Path = DVC_LOCK) -> Mapping[str, Any]:
    """DVC's entry of each step by its name; none where nothing has run. Raises ChainForgeError."""
    if not path.is_file():
        return {}
    stages = parse_mapping(path.read_bytes(), str(path)).get("stages")
    if not isinstance(stages, Mapping):
        raise ChainForgeError(
            f"{path} has no stages", f"git checkout {path}, or delete it: dvc repro writes it"
        )
    return stages


def md5(path: Path) -> str:
    """As DVC has it of a file."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
