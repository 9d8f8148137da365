"""What a reward may return."""

import math
from collections.abc import Sequence
from typing import Any, SupportsFloat

from chainforge.errors import ChainForgeError

FIX = "return one finite number, or None, per completion"


def check_values(who: str, values: Any, count: int) -> list[float | None]:
    """The values as floats; an array is a list too. Raises for a wrong length or type, NaN, infinity."""
    if callable(getattr(values, "tolist", None)):
        values = values.tolist()
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise ChainForgeError(f"{who} returned {type(values).__name__}, not a list", FIX)
    if len(values) != count:
        raise ChainForgeError(f"{who} returned {len(values)} values for {count} completions", FIX)
    return [None if value is None else _number(who, value, index) for index, value in enumerate(values)]


def _number(who: str, value: Any, index: int) -> float:
    try:
        if isinstance(value, SupportsFloat) and math.isfinite(number := float(value)):
            return number
    except (TypeError, ValueError, OverflowError, RuntimeError):  # an array, or a number beyond a float
        pass
    raise ChainForgeError(f"{who} returned {value!r:.100} for completion {index}", FIX)
