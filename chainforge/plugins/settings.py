"""The settings of a plugin, checked against the signature of what it registered."""

import inspect
from collections.abc import Mapping
from typing import Any

from chainforge.errors import ChainForgeError, describe, unknown
from chainforge.plugins.entry import Entry

CALL_ARGUMENTS = {"split", "n", "seed"}  # passed by ChainForge, not settings


def plugin_settings(entry: Entry, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a factory, checked against its signature; `Path` ones become paths."""
    known = _known(entry)
    checked: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in known:
            stranger = unknown("setting", str(name), known)
            raise ChainForgeError(f"{entry.who}: {stranger.problem}", stranger.fix)
        checked[name] = _value(entry, known[name], value)
    missing = [name for name, p in known.items() if p.default is p.empty and name not in settings]
    if missing:
        raise ChainForgeError(
            f"{entry.who} needs the setting {missing[0]!r}", f"add it {_place(entry)} in params.yaml"
        )
    return checked


def _place(entry: Entry) -> str:
    return f"to reward_settings.{entry.name}" if entry.role == "rewards" else "beside `plugin`"


def _known(entry: Entry) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters by name, less those that ChainForge fills."""
    try:
        parameters = inspect.signature(entry.component, eval_str=True).parameters
    except NameError as error:
        raise ChainForgeError(
            f"{entry.who}: {error} in an annotation", "import it at the top of the plugin"
        ) from error
    except Exception as error:  # annotations are a stranger's code, and some objects have no signature
        raise ChainForgeError(
            f"{entry.who}: its settings cannot be read: {describe(error)}",
            "register a function or a class whose signature Python can tell",
        ) from error
    for name, parameter in parameters.items():
        by_place = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        filled = name in CALL_ARGUMENTS and parameter.kind is not parameter.POSITIONAL_ONLY
        if by_place and parameter.default is parameter.empty and not filled:
            raise ChainForgeError(
                f"{entry.who} takes {name!r} by its place",
                f"settings are keyword-only arguments: write a * before {name!r} in the plugin",
            )
    return {
        name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY and name not in CALL_ARGUMENTS
    }


def _value(entry: Entry, parameter: inspect.Parameter, value: Any) -> Any:
    from pydantic import TypeAdapter, ValidationError  # not where plugins are only tried

    annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise ChainForgeError(
            f"{entry.who}: {parameter.name} is {value!r:.200}: {message}", "correct it in params.yaml"
        ) from None
    except Exception as error:
        raise ChainForgeError(
            f"{entry.who}: {parameter.name} cannot be checked against its annotation: {describe(error)}",
            "annotate settings with types that YAML has, or Path",
        ) from error
