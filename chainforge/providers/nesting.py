"""JSON from strangers, nested however deep: what no parser and no loop of ours could walk is cut off."""

import json
import re
from collections.abc import Mapping
from typing import Any

DEEPEST = 64  # levels; an answer has six
LONGEST_NUMBER = 300  # digits
CUT = "[nested too deep]"
PARTS = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


def load_json(text: str) -> Any:
    """The value. Raises ValueError for what is no JSON; endless numbers become null, deep nesting is cut, and
    a line break within a text is one."""
    try:
        value = json.loads(text, parse_int=whole_number, strict=False)
    except RecursionError:
        value = json.loads(shallow_text(text), parse_int=whole_number, strict=False)
    return shallow(value) if text.count("{") + text.count("[") > DEEPEST else value


def shallow(value: Any, levels: int = DEEPEST) -> Any:
    """The same value with CUT in place of what lies deeper."""
    if not isinstance(value, Mapping | list | tuple):
        return value
    if levels == 0:
        return CUT
    if isinstance(value, Mapping):
        return {name: shallow(inner, levels - 1) for name, inner in value.items()}
    return [shallow(inner, levels - 1) for inner in value]


def shallow_text(text: str) -> str:
    """The same of a text that no parser takes."""
    kept, depth, start = [], 0, 0
    for found in PARTS.finditer(text):
        if found[0] in "[{":
            if depth == DEEPEST:
                kept.append(text[start : found.start()])
            depth += 1
        elif found[0] in "]}":
            depth -= 1
            if depth == DEEPEST:
                kept.append(json.dumps(CUT))
                start = found.end()
    return "".join([*kept, text[start:]])


def whole_number(digits: str) -> int | None:
    """The number, or None where it has more digits than any count."""
    return int(digits) if len(digits) < LONGEST_NUMBER else None
