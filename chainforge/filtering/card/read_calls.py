"""Read `calls.json`, which `collect` writes beside the traces."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from chainforge.errors import ChainForgeError
from chainforge.outputs import sha256_of

NUMBER, TEXT, NUMBERS = int | None, str | None, dict[str, int]
SHAPE: Mapping[str, Any] = {  # of every key, as `collect` writes it
    "teacher": str, "parameters": dict[str, Any], "models": NUMBERS, "synthetic": bool | None,
    "first_day": TEXT, "last_day": TEXT, "requests": NUMBER, "answers": int, "possibly_paid": int,
    "tokens": NUMBERS | None, "cost_usd": TEXT, "price_table": TEXT, "traces_sha256": str,
}  # fmt: skip
TOKENS = {"hit", "miss", "output", "reasoning"}


def read_calls(path: Path, traces: Path) -> Mapping[str, Any]:
    """What was asked and paid for these traces. Raises ChainForgeError if it is of other traces."""
    if not path.is_file():
        raise ChainForgeError(
            f"there is no file {path}", "run the collect step: it writes it with the traces"
        )
    try:
        calls = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ChainForgeError(f"{path}: not JSON: {error}", "run the collect step again") from error
    absent = [key for key in SHAPE if not isinstance(calls, Mapping) or key not in calls]
    if absent:
        raise ChainForgeError(f"{path} has no {absent[0]!r}", "run the collect step again")
    for key, wanted in SHAPE.items():
        try:
            TypeAdapter(wanted, config=ConfigDict(strict=True)).validate_python(calls[key])
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise ChainForgeError(
                f"{path}: {key} is {calls[key]!r:.60}: {message}", "run the collect step again"
            ) from None
    if absent := sorted(TOKENS - (TOKENS if calls["tokens"] is None else set(calls["tokens"]))):
        raise ChainForgeError(f"{path}: tokens has no {absent[0]!r}", "run the collect step again")
    if calls["traces_sha256"] != sha256_of(traces):
        raise ChainForgeError(
            f"{path} is not of {traces}: that file has another sha256",
            "run the collect step again, which writes both; or write the file's own as traces_sha256",
        )
    found: Mapping[str, Any] = calls
    return found
