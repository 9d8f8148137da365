"""Read `calls.json`, which `collect` writes beside the traces."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chainforge.errors import ChainForgeError
from chainforge.outputs import sha256_of

KEYS = (
    "teacher", "parameters", "models", "synthetic", "first_day", "last_day", "requests", "answers",
    "possibly_paid", "tokens", "cost_usd", "price_table", "traces_sha256",
)  # fmt: skip


def read_calls(path: Path, traces: Path) -> Mapping[str, Any]:
    """What was asked and paid for these traces. Raises ChainForgeError if it is of other traces."""
    if not path.is_file():
        raise ChainForgeError(
            f"there is no file {path}", "run the collect step: it writes it with the traces"
        )
    try:
        calls = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ChainForgeError(f"{path}: not JSON: {error}", "run the collect step again") from error
    absent = [key for key in KEYS if not isinstance(calls, Mapping) or key not in calls]
    if absent:
        raise ChainForgeError(f"{path} has no {absent[0]!r}", "run the collect step again")
    if calls["traces_sha256"] != sha256_of(traces):
        raise ChainForgeError(
            f"{path} is not of {traces}: that file has another sha256",
            "run the collect step again, which writes both; or write the file's own as traces_sha256",
        )
    found: Mapping[str, Any] = calls
    return found
