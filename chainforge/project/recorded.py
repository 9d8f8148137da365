"""dvc.lock as who looks back reads it: what each step ran with, and what it made."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chainforge.config.yaml import parse_yaml
from chainforge.errors import ChainForgeError

DVC_LOCK = Path("dvc.lock")


def read_recorded() -> Mapping[str, Any]:
    """DVC's entry of each step by its name; none where nothing has run. Raises ChainForgeError."""
    if not DVC_LOCK.is_file():
        return {}
    fix = f"bring back the one of the last commit: git checkout {DVC_LOCK}"
    try:
        content = parse_yaml(DVC_LOCK.read_bytes(), str(DVC_LOCK))
        recorded: dict[str, Any] = content["stages"] if content else {}
        outputs_of(recorded)
    except ChainForgeError as error:
        raise ChainForgeError(error.problem, fix) from error
    except (AttributeError, KeyError, TypeError) as error:
        raise ChainForgeError(f"{DVC_LOCK} is not as DVC writes it: {error!r:.100}", fix) from error
    return recorded


def outputs_of(recorded: Mapping[str, Any]) -> dict[str, str | None]:
    """The digest of each output, by its path; None where DVC has none."""
    return {out["path"]: out.get("md5") for entry in recorded.values() for out in entry.get("outs", ())}


def md5(path: Path) -> str:
    """As DVC has it of a file."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
