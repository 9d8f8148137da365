"""What a card must not say: keys, addresses of servers, places on somebody's disk."""

import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from chainforge.errors import ChainForgeError
from chainforge.providers.secrets import LIKE_A_KEY, OF_A_KEY, SHORTEST, USUAL

ADDRESS, KEY = "[an address, left out]", "[a key, left out]"


def hide(value: Any, name: str = "") -> Any:
    """Settings for everybody's eyes: of a path outside of the project only its last part is left."""
    if isinstance(value, Mapping):
        return {key: hide(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [hide(inner, name) for inner in value]
    if not isinstance(value, str):
        return value
    if (value and OF_A_KEY.search(name)) or LIKE_A_KEY.search(value) or any(key in value for key in _keys()):
        return KEY
    if "://" in value:
        return ADDRESS
    path = PurePath(value)
    outside = path.is_absolute() or value.startswith("~") or ".." in path.parts
    return f"…/{path.name}" if outside else value


def refuse_secrets(text: str, where: str) -> None:
    """Raise ChainForgeError where a text holds a key of the environment, or what looks like a key."""
    known = next((name for value, name in _keys().items() if value in text), None)
    if known or LIKE_A_KEY.search(text):
        raise ChainForgeError(
            f"{where} holds {f'the value of {known}' if known else 'what looks like a key'}",
            "take it out where it comes from, and make that anew; nothing was sent",
        )


def _keys() -> dict[str, str]:
    """Values of the environment that are keys, by their names' look -> the variable."""
    return {
        value: name
        for name, value in os.environ.items()
        if USUAL.search(name) and len(value) >= SHORTEST and not value.isdecimal()
    }
