"""Keys: read from the environment, and kept out of every text."""

import ast
import os
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from chainforge.errors import ChainForgeError

NONE = "none"  # for servers that want no key, and clients that want one
USUAL = re.compile(r"(^|_)(API_?KEY|KEY|KEY_ID|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)S?$", re.IGNORECASE)
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


def environment_without_keys(named: Collection[str] = (), keep: Collection[str] = ()) -> dict[str, str]:
    """The environment for a process that needs no key: without variables that are named as keys usually are
    (`*_API_KEY`, `*_TOKEN`, `*_SECRET`, …) and those in `named`, but for those in `keep`."""
    return {
        variable: value
        for variable, value in os.environ.items()
        if variable in keep or not (variable in named or USUAL.search(variable))
    }


def keys_named_in(code: bytes) -> Iterator[str]:
    """The variables that a plugin's code names as keys: `secret("NAME")`, and texts called `…key…`."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Call(func=ast.Attribute(attr="secret") | ast.Name(id="secret"), args=[first, *_]):
                yield from _texts(first)
            case ast.keyword(arg=str(name), value=value) if _is_about_keys(name):
                yield from _texts(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if _is_about_keys(name):
                yield from _texts(value)
            case ast.arguments():
                defaults = zip(node.kwonlyargs, node.kw_defaults, strict=True)
                for argument, default in defaults:
                    if default is not None and _is_about_keys(argument.arg):
                        yield from _texts(default)


def _is_about_keys(name: str) -> bool:
    return "key" in name.lower()


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
