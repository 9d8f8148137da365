"""What was asked, answered and paid, beside the traces: `calls.json`."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from chainforge.records import Trace


def in_process_calls(
    teacher: str,
    parameters: Mapping[str, Any],
    traces_path: Path,
    traces: Iterable[Trace],
    *,
    synthetic: bool | None = None,
) -> dict[str, Any]:
    """The calls of a teacher that runs here: nothing was paid, and null is what it has nothing to say on.

    `models` are the traces' origins. `traces_sha256` is of the file as written, so that the two belong
    together.
    """
    models = Counter(trace.origin for trace in traces)
    with traces_path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "teacher": teacher,
        "parameters": dict(parameters),
        "models": dict(models),
        "synthetic": synthetic,
        "first_day": None,
        "last_day": None,
        "requests": None,
        "answers": models.total(),
        "possibly_paid": 0,
        "tokens": None,
        "cost_usd": None,
        "price_table": None,
        "traces_sha256": digest,
    }
