"""params.yaml three-way, by setting: for a file that DVC or an editor has written in another layout."""

import io
from collections.abc import Iterator, Mapping
from typing import Any

from chainforge.config.loading import PARAMS
from chainforge.config.yaml import parse_mapping
from chainforge.project.profiles import round_trip_yaml, shown
from chainforge.run.fingerprint import ABSENT, differences


def merge_settings(base: str, mine: str, theirs: str) -> str:
    """Mine with what changed from base to theirs, where mine has base's value. A value of one's own stays."""
    yaml = round_trip_yaml()
    merged = yaml.load(mine)
    for key, before, now in differences(_plain(base), _plain(theirs)):
        *path, leaf = key.split(".")
        node: Any = merged
        for part in path:
            node = node.get(part) if isinstance(node, Mapping) else None
        if not isinstance(node, Mapping) or node.get(leaf, ABSENT) != before:
            continue
        if now is ABSENT:
            del node[leaf]  # type: ignore[attr-defined]  # ruamel's own mapping
        else:
            node[leaf] = now  # type: ignore[index]
    buffer = io.StringIO()
    yaml.dump(merged, buffer)
    return buffer.getvalue()


def setting_changes(base: str, mine: str, theirs: str) -> Iterator[str]:
    """A line per setting that is new, gone, or has another default; with one's own value where it stays."""
    if base == theirs:
        return
    own = _plain(mine)
    for key, before, now in differences(_plain(base), _plain(theirs)):
        value = _value(own, key)
        kept = "" if value in (before, now) else f"; yours, {shown(value)}, stays"
        if before is ABSENT:
            yield f"new setting {key}: {shown(now)}{kept}"
        elif now is ABSENT:
            yield f"{key} is no setting any more (was {shown(before)}){kept}"
        else:
            yield f"{key}: {shown(before)} -> {shown(now)}{kept}"


def _value(tree: Mapping[str, Any], key: str) -> Any:
    node: Any = tree
    for part in key.split("."):
        node = node.get(part, ABSENT) if isinstance(node, Mapping) else ABSENT
    return node


def _plain(text: str) -> dict[str, Any]:
    return parse_mapping(text, str(PARAMS))
