"""dvc.yaml as far as it is read here: its stanzas, whose shape is checked.

DVC checks the file too, but not where a command of ours is called by hand.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from chainforge.config.yaml import parse_yaml
from chainforge.errors import ChainForgeError

LOCK = "plugins.lock.json"
Paths = list[str | dict[str, Any]]


class Stanza(BaseModel):
    """What one step reads, runs and writes; `foreach` has its body in `do`."""

    model_config = ConfigDict(frozen=True, strict=True)
    cmd: str | list[str] = ""
    deps: list[str] = []
    params: list[str | dict[str, list[str] | None]] = []
    outs: Paths = []
    metrics: Paths = []
    plots: Paths = []
    foreach: str | dict[str, Any] | None = None
    do: dict[str, Any] | None = None
    matrix: dict[str, str | list[str]] | None = None

    @property
    def lock_keys(self) -> list[str]:
        """The places in plugins.lock.json that the step watches."""
        entries = (entry for entry in self.params if isinstance(entry, Mapping))
        return [key for entry in entries for key in entry.get(LOCK) or ()]

    @property
    def written(self) -> Iterator[tuple[str, bool]]:
        """Every output, and whether DVC keeps it in its cache."""
        for entry in (*self.outs, *self.metrics, *self.plots):
            if isinstance(entry, str):
                yield entry, True
            else:
                for path, options in entry.items():
                    yield path, not (isinstance(options, Mapping) and options.get("cache") is False)


def read_stanzas(path: Path) -> Mapping[str, Stanza]:
    """Every stanza by name, in the order of the file. Raises ChainForgeError that names what is odd."""
    if not path.is_file():
        raise ChainForgeError(f"there is no {path} in {Path.cwd()}", "run this in the project's folder")
    try:
        return _stanzas(path, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ChainForgeError(f"{path} is not UTF-8: {error}", "save it as UTF-8") from error


@cache
def _stanzas(path: Path, text: str) -> Mapping[str, Stanza]:
    loaded = parse_yaml(text, str(path))
    stages = loaded.get("stages") if isinstance(loaded, Mapping) else None
    if not isinstance(stages, Mapping) or not stages:
        raise ChainForgeError(
            f"{path} has no section `stages`", f"git checkout {path} brings back the graph of the project"
        )
    return {name: check_stanza(name, given, path) for name, given in stages.items()}


def check_stanza(name: str, given: Any, path: Path) -> Stanza:
    """The stanza of that name. Raises ChainForgeError where it has another shape."""
    try:
        stanza = Stanza.model_validate(given)
        if stanza.foreach is not None:
            Stanza.model_validate(stanza.do)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["stages", name, *_readable(first["loc"])])
        message = first["msg"][0].lower() + first["msg"][1:]
        raise ChainForgeError(
            f"{path}: {where} is {first['input']!r:.100}: {message}",
            f"write it as the other stanzas are written, or: git checkout {path}",
        ) from None
    return stanza


def _readable(loc: Iterable[str | int]) -> Iterator[str]:
    """The place without pydantic's own words for alternatives: `str`, `list[str]`."""
    return (str(part) for part in loc if part != "str" and (isinstance(part, int) or part.isidentifier()))
