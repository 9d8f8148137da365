"""Keys: read from the environment, and kept out of every text."""

import ast
import os
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from chainforge.errors import ChainForgeError
from chainforge.providers.nesting import shallow

NONE = "none"  # for servers that want no key, and clients that want one
USUAL = re.compile(r"(^|_)(API_?KEY|KEY|KEY_ID|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)S?$", re.IGNORECASE)
# Names under which a key is handed to a server, as a field of JSON or of a URL's query.
OF_A_KEY = re.compile(
    r"(^|[_.-])(x?-?api[_-]?keys?|secrets?|passwords?|passwd|authorization|credentials?|bearer"
    r"|(access|auth|refresh|session|id|bearer|security)[_-]?token)$|^(key|token|auth|sig|signature|code|pw|pwd)$",
    re.IGNORECASE,
)
LIKE_A_KEY = re.compile(
    r"(?<![\w-])((Bearer|Basic) \S{8,}|(sk-|pk-|gsk_|hf_|AIza|xai-|ghp_|github_pat_|AKIA|eyJ)[\w.~+=-]{16,})"
)
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
            f"export {variable}=…  (in the shell only: never write a key into a file of the project)",
        )
    return value or NONE


def without_key(key: str, said: Any) -> Any:
    """A text, or JSON, with the key crossed out in every string. Too short a key is no secret, and stays."""
    if len(key) < SHORTEST:
        return said
    try:
        return _cross_out(key, said)
    except RecursionError:
        return _cross_out(key, shallow(said))


def cross_out_keys(text: str) -> str:
    """A text without the values of variables that are named as keys are, or what looks like one."""
    for name, value in os.environ.items():
        if USUAL.search(name):
            text = without_key(value, text)
    return LIKE_A_KEY.sub("[key]", text)


def _cross_out(key: str, said: Any) -> Any:
    if isinstance(said, str):
        return said.replace(key, "[key]")
    if isinstance(said, Mapping):
        return {_cross_out(key, name): _cross_out(key, value) for name, value in said.items()}
    if isinstance(said, list):
        return [_cross_out(key, value) for value in said]
    return said


def refuse_keys(settings: Mapping[str, Any], where: str = "teacher", named: str = "key_env") -> None:
    """Raise ChainForgeError that names a setting which holds a key: settings are written down, keys never.

    One is known by its name (`api_key`), by its look (`sk-…`), by its place in a URL (`user:word@`, `?key=`),
    or as the value of a variable of the environment that is named as keys are. `named`: the setting that
    says where the key is.
    """
    known = {
        value: name
        for name, value in os.environ.items()
        if USUAL.search(name) and len(value) >= SHORTEST and not value.isdecimal()
    }
    for path, text in _strings(settings, where):
        name = path.rpartition(".")[2]
        inside = next((variable for value, variable in known.items() if value in text), "")
        if inside or LIKE_A_KEY.search(text) or (OF_A_KEY.search(name) and text) or _url_has_key(text):
            what = f"the value of {inside}" if inside else "a key"
            raise ChainForgeError(
                f"{path} holds {what}: settings are kept in files, where no key belongs",
                f"take it out there; set it in the environment, and name that variable in {where}.{named}",
            )


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """(where, text) of every string; what lies below a name of a key is that key."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _strings(inner, f"{path}.{str(name).replace('.', '_')}")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner, path)


def _url_has_key(text: str) -> bool:
    if "://" not in text:
        return False
    try:
        url = urlsplit(text.strip())
    except ValueError:
        return True  # nobody knows what it holds, and it is no URL
    return "@" in url.netloc or any(OF_A_KEY.search(name) for name, _ in parse_qsl(url.query))


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
