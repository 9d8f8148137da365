"""YAML that somebody wrote, as bytes or text, from wherever it came."""

from pathlib import Path
from typing import Any

from chainforge.config import yaml_text
from chainforge.errors import ChainForgeError


def parse_yaml(content: bytes | str, where: str) -> Any:
    """The value. Raises ChainForgeError that names the place, for whatever it is that the parser rejects."""
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
    except UnicodeDecodeError as error:
        raise ChainForgeError(f"{where} is not UTF-8: {error}", "save it as UTF-8") from None
    return yaml_text.parse_yaml(Path(where), text)


def parse_mapping(content: bytes | str, where: str) -> dict[str, Any]:
    """The same, where it is a mapping. Raises ChainForgeError otherwise."""
    value = parse_yaml(content, where)
    if not isinstance(value, dict):
        raise ChainForgeError(f"{where} holds no settings", "write a mapping of names: `name: value`")
    return value
