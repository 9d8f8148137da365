"""A step's settings as a tracker takes them: one level of names, and no keys."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from chainforge.errors import ChainForgeError
from chainforge.providers.secrets import refuse_keys

LEFT_OUT = "(left out: it looks like a key)"
Value = str | int | float | bool


def tracked_settings(**sections: BaseModel) -> dict[str, Value]:
    """`run.seed`, `settings.kl_coeff`, `settings.engine.kind`: every setting, in place of null a text."""
    return {
        name: value
        for section, settings in sections.items()
        for name, value in _flat(section, settings.model_dump(mode="json"))
    }


def _flat(name: str, value: Any) -> Iterator[tuple[str, Value]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
        return
    try:
        refuse_keys({name.rpartition(".")[2]: value})
    except ChainForgeError:
        value = LEFT_OUT
    yield name, value if isinstance(value, Value) else json.dumps(value)
