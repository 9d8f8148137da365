"""Files that a person may have edited: of the shape that a step writes, or an error that names the place."""

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from chainforge.errors import ChainForgeError


def shaped(kind: Any, value: Any, where: str, fix: str) -> Any:
    """The value as that type: a dataclass, a model or a list of them. Raises ChainForgeError."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise told(error, where, fix) from None


def read_shaped(kind: Any, path: Path, fix: str) -> Any:
    """The same of a JSON file. Raises ChainForgeError for one that is missing or no JSON, too."""
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except OSError as error:
        raise ChainForgeError(f"{path} cannot be read: {error.strerror or error}", fix) from None
    except ValidationError as error:
        raise told(error, str(path), fix) from None


def told(error: ValidationError, where: str, fix: str) -> ChainForgeError:
    """The first thing that does not fit."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return ChainForgeError(f"{where}: {place}{': ' * bool(place)}{first['msg']}", fix)
