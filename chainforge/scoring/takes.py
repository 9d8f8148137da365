"""What a reward takes, held against what there is: missing columns, and options that were forgotten."""

import inspect
from collections.abc import Callable, Collection
from typing import Any

from chainforge.errors import ChainForgeError, describe, text_of
from chainforge.reward_options import RewardOptions

SHARED = ("trainer_state", "response_format", "log_metric", "log_extra")
PLURAL, SINGULAR = ("prompts", "completions"), ("prompt", "completion")
PER_SAMPLE_ALONE = ("info", "state")
EACH = ("answer", "completion_ids")


def always_there(options: RewardOptions) -> set[str]:
    """The names that a reward is offered whatever columns the prompts have."""
    own = (*SINGULAR, *PER_SAMPLE_ALONE) if options.per_sample else PLURAL
    return {*own, *EACH, *SHARED}


def required_arguments(who: str, function: Callable[..., Any]) -> list[str]:
    """The arguments that a function cannot do without. Raises ChainForgeError where it cannot be called."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise ChainForgeError(
            f"{who}: what it takes cannot be read: {describe(error)}",
            "register a function whose signature Python can tell",
        ) from error
    for name, parameter in parameters.items():
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise ChainForgeError(
                f"{who} takes {name!r} by its place alone ({place_of(function)})",
                "take the / out of its signature: a reward is called with keyword arguments",
            )
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        name
        for name, parameter in parameters.items()
        if parameter.kind not in variable and parameter.default is parameter.empty
    ]


def missing_columns(who: str, function: Callable[..., Any], options: RewardOptions) -> list[str]:
    """What it needs of the prompts' columns. Raises ChainForgeError where an option was forgotten."""
    missing = [name for name in required_arguments(who, function) if name not in always_there(options)]
    if options.per_sample and (plural := [name for name in missing if name in PLURAL]):
        raise ChainForgeError(
            f"{who} takes {plural[0]!r}, but is registered with per_sample=True, "
            f"which gives {plural[0][:-1]!r} ({place_of(function)})",
            "leave per_sample out where it is registered, or take the singular",
        )
    return missing


def check_columns(
    who: str, function: Callable[..., Any], options: RewardOptions, columns: Collection[str], where: str
) -> None:
    """Raise ChainForgeError for an argument that it needs and nobody gives."""
    for name in missing_columns(who, function, options):
        if name in columns:
            continue
        if name in (*SINGULAR, *PER_SAMPLE_ALONE):
            raise ChainForgeError(
                f"{who} takes {name!r}, the value for one completion, and is called for all at once "
                f"({place_of(function)})",
                f"register(…, per_sample=True) calls it for each, or take {_plural(name)}",
            )
        raise ChainForgeError(
            f"{who} needs the column {name!r}, which {where} do not have ({place_of(function)})",
            f"they have: {', '.join(sorted(columns)) or 'none'}. Have the prompt source give it, "
            f"or give {name!r} a default in the reward",
        )


def wrong_shape(error: BaseException, *, conversational: bool) -> str:
    """What to do where the error is that of texts taken for messages, or the other way round."""
    said = text_of(error) if isinstance(error, TypeError | AttributeError) else ""
    if not conversational and "string indices must be integers" in said:
        return (
            "prompts and completions are texts; for lists of messages register it with conversational=True, "
            "or use the text as it is"
        )
    texts = (
        "expected string or bytes-like object",
        "'list' object has no attribute",
        "argument of type 'list'",
    )
    if conversational and any(text in said for text in texts):
        return (
            "with conversational=True a completion is a list of messages: take completion[0]['content'], "
            "or leave the option out where it is registered"
        )
    return ""


def place_of(function: Callable[..., Any]) -> str:
    """File and line of a function, as far as they are known."""
    plain = inspect.unwrap(function)
    by_call = getattr(type(plain), "__call__", None)  # noqa: B004 - an object that is called
    code = getattr(plain, "__code__", None) or getattr(by_call, "__code__", None)
    return f"{code.co_filename}, line {code.co_firstlineno}" if code else "its place is not known"


def _plural(name: str) -> str:
    return f"{name}s" if name in SINGULAR else "the columns themselves"
