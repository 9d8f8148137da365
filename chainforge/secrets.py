"""Keys: read from the environment, and kept out of every text."""

import os
from collections.abc import Mapping
from typing import Any

from chainforge.errors import ChainForgeError

NONE = "none"  # for servers that want no key, and clients that want one
SHORTEST = 8  # characters of a secret: `any` or `1`, for servers that do not look, are in many an answer


def secret(variable: str, *, needed: bool = True) -> str:
    """The value of an environment variable. Raises ChainForgeError if it is needed and not set."""
    value = os.environ.get(variable, "").strip()
    if value and not (value.isascii() and value.isprintable()):
        raise ChainForgeError(
            f"the environment variable {variable} holds characters that no key has", "copy the key anew"
        )
    if needed and not value:
        raise ChainForgeError(
            f"the environment variable {variable} is not set",
            f"export {variable}=…  (in the shell only: a key belongs into no file of the project)",
        )
    return value or NONE


def without_key(key: str, said: Any) -> Any:
    """A text, or JSON, with the key crossed out in every string. Too short a key is no secret, and stays."""
    if len(key) < SHORTEST:
        return said
    if isinstance(said, str):
        return said.replace(key, "[key]")
    if isinstance(said, Mapping):
        return {without_key(key, name): without_key(key, value) for name, value in said.items()}
    if isinstance(said, list):
        return [without_key(key, value) for value in said]
    return said
