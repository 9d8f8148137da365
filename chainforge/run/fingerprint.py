"""What the result of a step depends on, as one fingerprint: the key of its resume folder."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Inputs:
    """`params` by section, the step's part of plugins.lock.json, and digests of the files that it reads."""

    step: str
    params: Mapping[str, Any]
    lock: Mapping[str, Any]
    files: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits, the same wherever the project lies."""
        text = json.dumps(asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class Absent:
    """The value of a key that is not there; null is a value."""

    def __str__(self) -> str:
        return "not set"


ABSENT = Absent()


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], at: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, before, now) wherever two trees differ; ABSENT where one has no such key."""
    for key in [*old, *(key for key in new if key not in old)]:
        before, now, dotted = old.get(key, ABSENT), new.get(key, ABSENT), f"{at}{key}"
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from differences(before, now, f"{dotted}.")
        elif before != now:
            yield dotted, before, now


def describe_change(key: str, before: object, now: object) -> str:
    """A difference between two `Inputs` for a person: settings with their values."""
    kind, _, rest = key.partition(".")
    return f"{rest} {before} -> {now}" if kind == "params" else f"{rest or kind} changed"
