"""Lay a profile over the base: which of the two counts, setting by setting."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from chainforge.errors import ChainForgeError
from chainforge.project.graph import SHARED
from chainforge.project.stanzas import Stanza

REPLACED_WHOLE = {"rewards", "parents"}


def check_overlay(base: Mapping[str, Any], overlay: Mapping[str, Any], where: Path, at: str = "") -> None:
    """Raise ChainForgeError where an overlay has a value in the place of a section. A plugin may be its name
    alone, or none."""
    for key, value in overlay.items():
        before, dotted = base.get(key), f"{at}{key}"
        if isinstance(before, Mapping) and not isinstance(value, Mapping):
            if "plugin" not in before:
                raise ChainForgeError(
                    f"{where}: {dotted} must be a section, found {value!r:.40}", "indent its settings below"
                )
        elif isinstance(before, Mapping) and key not in REPLACED_WHOLE and "plugin" not in value:
            check_overlay(before, value, where, f"{dotted}.")


def merge(base: Any, overlay: Mapping[str, Any]) -> None:
    """Put the overlay on the base in place."""
    for key, value in overlay.items():
        together = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        if together and key not in REPLACED_WHOLE and "plugin" not in value:
            merge(base[key], value)
        elif key in base or not base:
            base[key] = value
        else:  # before the last key, to which the comment of the next section belongs
            base.insert(len(base) - 1, key, value)


def give_way(base: Any, overlay: Mapping[str, Any], graph: Iterable[Stanza]) -> None:
    """Where an overlay speaks of several steps, take out of the base what it says of one of them.

    So an overlay's `grpo.learning_rate` comes before the base's `grpo_final.learning_rate`.
    """
    for general, special in _laid_over(base, graph):
        shared, said, own = _section(overlay, [general]), _section(overlay, special), _section(base, special)
        for key in own.keys() & shared.keys() - said.keys():
            del own[key]


def _laid_over(params: Mapping[str, Any], graph: Iterable[Stanza]) -> Iterator[tuple[str, Sequence[str]]]:
    """(a section of several steps, the path of a section of one step that is laid over it)."""
    for stanza in graph:
        declared = (stanza.do or {}).get("params") or stanza.params
        sections = [name for name in declared if isinstance(name, str) and name not in SHARED]
        for general, special in itertools.combinations(sections, 2):
            parent, _, name = special.partition(".")
            names = _section(params, [parent]) if name.startswith("${") else ()
            yield from ((general, [parent, each]) for each in names)
            if not name:
                yield general, [parent]


def _section(params: Mapping[str, Any], path: Sequence[str]) -> Any:
    """What stands there; nothing where that is no section of settings, or one of a plugin's."""
    node: Any = params
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) and "plugin" not in node else {}
