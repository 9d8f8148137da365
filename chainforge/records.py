"""What the steps hand to each other: frozen records, one JSON object each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict, TypeVar, get_args

Finish = Literal["stop", "length", "content_filter", "error"]


ROLES = ("system", "user", "assistant")


class Message(TypedDict):
    """One turn of a conversation, in the chat format every library shares. `role` is one of ROLES."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A problem to solve. `columns` reaches the rewards as keyword arguments, beside `answer`."""

    id: str
    source: str
    messages: tuple[Message, ...]
    answer: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


def plain(text: str) -> str:
    """The text without differences of case and white space. Signs stay: 3 − 2 is not 3 + 2."""
    return " ".join(text.casefold().split())


def plain_text(prompt: Prompt) -> str:
    """The conversation without differences of case and white space: what makes two prompts the same."""
    return "\x1f".join(plain(message["content"]) for message in prompt.messages)


@dataclass(frozen=True, slots=True)
class Trace:
    """What a teacher said: its reasoning and its answer, still apart and without any tag."""

    prompt_id: str
    reasoning: str
    content: str
    finish: Finish
    origin: str


@dataclass(frozen=True, slots=True)
class Completion:
    """What a policy sampled. `logprobs` are natural logarithms, one per token of `token_ids`.

    `token_ids` includes the end-of-sequence token when finish is "stop"; `text` never shows it.
    """

    prompt_id: str
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    origin: str


@dataclass(frozen=True, slots=True)
class Score:
    """The weighted sum, and each reward before its weight; None where a reward does not apply, or failed."""

    total: float
    parts: Mapping[str, float | None]
    failed: tuple[str, ...] = ()  # rewards that gave no answer, such as for want of time


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt with its completions and their scores, in the same order."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One supervised example: loss on `response` only, never on `messages`."""

    prompt_id: str
    messages: tuple[Message, ...]
    response: str
    origin: str


Record = TypeVar("Record", Prompt, Trace, Completion, Example)

FIELD_TYPES: Mapping[str, tuple[Any, str]] = {  # every other field is a string
    "messages": (tuple, "a list"),
    "answer": (str | None, "a string or null"),
    "columns": (Mapping, "an object"),
    "token_ids": (tuple, "a list"),
    "logprobs": (tuple, "a list"),
}
ITEM_TYPES: Mapping[str, tuple[Any, str]] = {
    "token_ids": (int, "integers"),
    "logprobs": (int | float, "numbers"),
}


def to_json(record: Prompt | Trace | Completion | Example) -> dict[str, Any]:
    """The record as JSON-ready values, fields in the order of their definition."""
    row = {f.name: getattr(record, f.name) for f in fields(record)}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in row.items()}


def from_json(kind: type[Record], row: Mapping[str, Any]) -> Record:
    """The inverse of `to_json`. Raises ValueError that names a missing, unknown or mistyped field."""
    if not isinstance(row, Mapping):
        raise ValueError(  # noqa: TRY004 - one kind of error for one kind of caller
            f"expected an object, found {type(row).__name__}"
        )
    known = {f.name: f.type for f in fields(kind)}
    if unknown := sorted(set(row) - set(known)):
        raise ValueError(f"unknown field {unknown[0]!r}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    check_types(values)
    try:
        record = kind(**values)  # type: ignore[arg-type]  # the fields were checked by name above
    except TypeError as error:
        raise ValueError(str(error).partition("__init__() ")[2]) from error
    if "messages" in values:
        check_messages(values["messages"])
    return record


def check_record(kind: type[Record], value: object) -> Record:
    """The value, which code from outside made. Raises ValueError that names what is wrong with it.

    A type annotation is no check: a record can hold anything until it is written or read.
    """
    if not isinstance(value, kind):
        raise ValueError(f"expected a {kind.__name__}, found {value!r:.60}")  # noqa: TRY004 - as from_json
    values = {f.name: getattr(value, f.name) for f in fields(kind)}
    values |= {key: tuple(values[key]) for key in values if isinstance(values[key], list)}
    check_types(values)
    if "messages" in values:
        check_messages(values["messages"])
    try:
        json.dumps(values.get("columns"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"field 'columns' holds what JSON cannot: {error}") from error
    return value


def check_types(values: Mapping[str, Any]) -> None:
    """Raise ValueError for a field of a record that has the wrong type or value."""
    for name, value in values.items():
        types, wanted = FIELD_TYPES.get(name, (str, "a string"))
        if not isinstance(value, types):
            problem = f"field {name!r} must be {wanted}, found {value!r:.40}"
            raise ValueError(problem)  # noqa: TRY004 - callers expect one kind of error
        types, wanted = ITEM_TYPES.get(name, (object, ""))
        for item in value if name in ITEM_TYPES else ():
            if not isinstance(item, types) or isinstance(item, bool):
                problem = f"field {name!r} must be a list of {wanted}, found {item!r:.40} in it"
                raise ValueError(problem)  # noqa: TRY004
    if "finish" in values and values["finish"] not in get_args(Finish):
        raise ValueError(f"field 'finish' must be one of {get_args(Finish)}, found {values['finish']!r:.40}")


def check_messages(messages: Sequence[Any]) -> None:
    """Raise ValueError unless these are {"role": str, "content": str}, and the last one asks something."""
    if not messages:
        raise ValueError("field 'messages' is empty")
    for place, message in enumerate(messages, start=1):
        if defect := _defect(message):
            raise ValueError(f"message {place} of {len(messages)} {defect}")
    if not messages[-1]["content"].strip():
        raise ValueError("the last message is empty: there is nothing to answer")


def _defect(message: Any) -> str | None:
    wanted = '{"role": "…", "content": "…"}'
    if not isinstance(message, dict):
        return f"must be {wanted}, found {message!r:.60}"
    for key in message:
        if str(key).startswith("reasoning"):
            return f"has {key!r}: remove it; what was thought in earlier turns is no part of a prompt"
        if key not in ("role", "content"):
            return f"must be {wanted}, and has {key!r:.60} too: remove it"
    for key in ("role", "content"):
        if key not in message:
            return f"must be {wanted}, and has no {key!r}"
        if not isinstance(message[key], str):
            return f"must be {wanted}, and its {key!r} is not a string: {message[key]!r:.60}"
    if message["role"] not in ROLES:
        return f"has the unknown role {message['role']!r:.60}; known: {', '.join(ROLES)}"
    return None
