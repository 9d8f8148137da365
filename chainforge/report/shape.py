"""Files that a person may have edited: of the shape that a step writes, or an error that names the place."""

from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from chainforge.errors import ChainForgeError


class Said(BaseModel):
    """An answer in data/eval/CHECKPOINT/BENCH.jsonl, as much of it as every reader needs."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    text: str
    rewards: dict[str, float | None]


class Turn(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(strict=True)
    role: str
    content: str


class Asked(BaseModel):
    """A line of it."""

    model_config = ConfigDict(strict=True)
    prompt_id: str
    question: str
    answer: str | None
    samples: list[Said] = Field(min_length=1)
    greedy: Said | None
    messages: list[Turn] = []


class Finished(Said):
    """An answer with what the report shows beside it."""

    finish: str
    tokens: int


class Evaluated(Asked):
    """A line with what the report groups by."""

    source: str
    samples: list[Finished] = Field(min_length=1)  # type: ignore[assignment]
    greedy: Finished | None


def check_shape(kind: Any, value: Any, where: str, fix: str) -> Any:
    """The value as that type: a dataclass, a model or a list of them. Raises ChainForgeError."""
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise _explain(error, where, fix) from None


def read_shaped(kind: Any, path: Path, fix: str) -> Any:
    """The content of a JSON file as that type. Raises ChainForgeError, for one that is no JSON too."""
    try:
        return _adapter(kind).validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        raise _explain(error, str(path), fix) from None


_adapter = cache(TypeAdapter)


def _explain(error: ValidationError, where: str, fix: str) -> ChainForgeError:
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return ChainForgeError(f"{where}: {place}{': ' * bool(place)}{first['msg']}", fix)
