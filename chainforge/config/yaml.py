"""YAML as people write it: texts, numbers, lists and sections; anything else is told with its line."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import Node

from chainforge.errors import ChainForgeError

DEEPEST = 50
NESTED = re.compile(r"(?:[\[{]\s*){200}|(?:-[ \t]+){200}")


class _Constructor(SafeConstructor):
    """Says where a value stands that cannot be made: an impossible date, a number of 6,000 digits."""

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except MarkedYAMLError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            shown = f"{node.value!r:.40} is no {str(node.tag).rpartition(':')[2]}"
            raise ConstructorError(problem=f"{shown} ({text:.80})", problem_mark=node.start_mark) from error


@lru_cache(maxsize=64)
def parse_yaml(content: bytes | str, where: str) -> Any:
    """What a YAML text holds. Raises ChainForgeError that names the place, and the line or the key there.

    The parser is slow, so whoever asks for the same text again is given the same object: it is for reading.
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
    except UnicodeDecodeError as error:
        raise ChainForgeError(f"{where} is not UTF-8: {error}", "save it as UTF-8") from None
    if NESTED.search(text):  # the parser would take minutes to find out
        raise _too_deep(where)
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        loaded = yaml.load(text)
        _check(where, loaded, ())
    except RecursionError as error:
        raise _too_deep(where) from error
    except ChainForgeError:
        raise
    except Exception as error:  # the parser has its own errors, and lets others through
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise ChainForgeError(f"{where}{line}: not YAML: {problem:.300}", "correct that line") from error
    return loaded


def parse_mapping(content: bytes | str, where: str) -> dict[str, Any]:
    """The same, where it is a mapping. Raises ChainForgeError otherwise."""
    value = parse_yaml(content, where)
    if not isinstance(value, dict):
        raise ChainForgeError(f"{where} holds no settings", "write a mapping of names: `name: value`")
    return value


def _check(where: str, node: Any, at: tuple[str, ...]) -> None:
    """Raise for keys that are not texts, and for values that are not plain."""
    if len(at) > DEEPEST:
        raise _too_deep(where)
    if isinstance(node, Mapping):
        for key, value in node.items():
            if not isinstance(key, str):
                raise ChainForgeError(
                    f"{where}: {'.'.join(at) or 'the top level'} has the key {key!r:.60}, which is no text",
                    "put it in quotes, or take it out",
                )
            _check(where, value, (*at, key))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            _check(where, value, (*at, str(place)))
    elif not isinstance(node, str | int | float | None):
        raise ChainForgeError(
            f"{where}: {'.'.join(at) or 'it'} is a {type(node).__name__}: {node!s:.60}",
            "put it in quotes if it is a text",
        )


def _too_deep(where: str) -> ChainForgeError:
    return ChainForgeError(f"{where} is nested more than {DEEPEST} deep", "write it flatter")
