"""params.yaml -> frozen, validated settings; every error names the file, the key and the fix."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from chainforge.config.yaml import parse_yaml
from chainforge.errors import ChainForgeError

PARAMS = Path("params.yaml")


class Settings(BaseModel):
    """A frozen section of params.yaml: unknown keys and wrong types are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Choice(BaseModel):
    """A plugin by name, with the plugin's own settings beside it: `{plugin: NAME, ...}` or just NAME."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    plugin: str

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"plugin": value} if isinstance(value, str) else value

    @property
    def settings(self) -> dict[str, Any]:
        """The plugin's own settings."""
        return dict(self.model_extra or {})


class Role(str):
    """Marks a `Choice` field with the plugin role it picks from."""


S = TypeVar("S", bound=BaseModel)


def read_params(path: Path = PARAMS) -> dict[str, Any]:
    """The whole file under YAML 1.2 rules (1e-6 is a number)."""
    if not path.is_file():
        raise ChainForgeError(
            f"there is no {path} in {Path.cwd()}",
            "run this in the project's folder, or make one with: chainforge profile use tiny",
        )
    try:
        return _read(path, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ChainForgeError(f"{path} is not UTF-8: {error}", "save it as UTF-8") from error


def _read(path: Path, text: str) -> dict[str, Any]:
    params = parse_yaml(text, str(path))
    if not isinstance(params, dict):
        raise ChainForgeError(f"{path} holds no settings", "chainforge profile use tiny writes a whole one")
    return params


def load_settings(kind: type[S], *sections: str, path: Path = PARAMS) -> S:
    """Merge the dotted `sections` of params.yaml, later ones on top, and validate them as `kind`.

    A section that has the name of a setting is the value of that setting: `base_model`.
    """
    merged: dict[str, Any] = {}
    owner: dict[str, str] = {}
    for section in sections:
        if section in kind.model_fields:
            merged[section], owner[section] = _node(read_params(path), section, path), ""
            continue
        for key, value in _section(read_params(path), section, path).items():
            merged[key] = value
            owner[key] = section
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        errors = sorted(
            error.errors(), key=lambda e: e["type"] != "extra_forbidden"
        )  # misspelt before missing
        raise _explain(errors[0], kind, owner, sections, path) from None


def _section(params: Mapping[str, Any], dotted: str, path: Path) -> Mapping[str, Any]:
    node = _node(params, dotted, path)
    if node is None:
        return {}
    if not isinstance(node, Mapping):
        raise ChainForgeError(
            f"{path}: {dotted} must be a section, found {node!r:.200}", "indent its settings below"
        )
    return node


def _node(params: Mapping[str, Any], dotted: str, path: Path) -> Any:
    node: Any = params
    for depth, key in enumerate(dotted.split("."), start=1):
        if not isinstance(node, Mapping) or key not in node:
            parent = ".".join(dotted.split(".")[: depth - 1]) or "the top level"
            known = ", ".join(map(str, node)) if isinstance(node, Mapping) else "none"
            raise ChainForgeError(
                f"{path}: there is no section {dotted!r}", f"add it; {parent} has: {known or 'nothing'}"
            )
        node = node[key]
    return node


def _explain(
    error: ErrorDetails, kind: type[BaseModel], owner: dict[str, str], sections: tuple[str, ...], path: Path
) -> ChainForgeError:
    loc = [str(part) for part in error["loc"]]
    section = owner.get(loc[0], sections[-1]) if loc else sections[-1]
    where = f"{path}: {'.'.join(filter(None, [section, *loc]))}"
    if error["type"] == "extra_forbidden":
        known = list(_fields(kind, loc[:-1]))
        close = difflib.get_close_matches(loc[-1], known, n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        parent = ".".join(filter(None, [section, *loc[:-1]]))
        return ChainForgeError(
            f"there is no setting in {path}: {parent} called {loc[-1]!r}", f"{guess}known: {', '.join(known)}"
        )
    if error["type"] == "missing":
        return ChainForgeError(f"{where} is missing", f"add it to one of: {', '.join(sections)}")
    if error["type"] == "value_error":
        problem = error["ctx"]["error"]
        return ChainForgeError(f"{where}: {problem}", getattr(problem, "fix", f"correct it in {path}"))
    message = error["msg"][0].lower() + error["msg"][1:]
    return ChainForgeError(f"{where} is {error['input']!r:.200}: {message}", f"correct it in {path}")


def _fields(kind: type[BaseModel], loc: list[str]) -> Iterator[str]:
    for part in loc:
        annotation = kind.model_fields[part].annotation if part in kind.model_fields else None
        for option in get_args(annotation) or (annotation,):  # a group, or null
            if isinstance(option, type) and issubclass(option, BaseModel):
                kind = option
    yield from kind.model_fields
