"""YAML that somebody wrote: parsed under YAML 1.2 rules, or refused in words."""

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from chainforge.errors import ChainForgeError


def parse_yaml(text: bytes | str, where: str) -> Any:
    """The value. Raises ChainForgeError that names the line, for whatever it is that the parser rejects."""
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return YAML(typ="safe", pure=True).load(text)
    except UnicodeDecodeError as error:
        raise ChainForgeError(f"{where} is not UTF-8: {error}", "save it as UTF-8") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise ChainForgeError(f"{where}{line}: not YAML: {problem}", "correct that line") from None
    except RecursionError:
        raise ChainForgeError(f"{where} is nested too deeply", "write it flatter") from None
    except (ValueError, TypeError, AttributeError, OverflowError, LookupError) as error:
        # an impossible date, a number of thousands of digits, a list as a key
        raise ChainForgeError(f"{where} has a value that nobody can read: {error}", "correct it") from None


def parse_mapping(text: bytes | str, where: str) -> dict[str, Any]:
    """The same, where it is a mapping with texts as keys. Raises ChainForgeError otherwise."""
    value = parse_yaml(text, where)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ChainForgeError(f"{where} holds no settings", "write a mapping of names: `name: value`")
    return value
