"""Keys: read from the environment, and kept out of every text."""

import os

from chainforge.errors import ChainForgeError

NONE = "none"  # for servers that want no key, and clients that want one


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


def without(key: str, text: str) -> str:
    """The text with the key, should it be in there, crossed out."""
    return text if key == NONE else text.replace(key, "[key]")
