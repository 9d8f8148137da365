"""Where plugins are: files of the project's folder, then bundled ones, then installed packages."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from chainforge import hookspecs
from chainforge.bundle import bundle, is_checkout

FOLDER = Path("plugins")
BUNDLED = "bundled/"  # the beginning of the source of a plugin that came with ChainForge


@dataclass(frozen=True, slots=True)
class Candidate:
    """One plugin before it is imported."""

    who: str  # what it is reported as
    source: str
    place: Path | EntryPoint

    def load(self) -> ModuleType:
        """Import it. Whatever it raises is passed on."""
        if isinstance(self.place, Path):
            return import_file(self.place)
        loaded = self.place.load()
        if not isinstance(loaded, ModuleType):
            raise TypeError(f"the entry point must name a module, not {self.place.value!r}")
        return loaded

    @property
    def state(self) -> str:
        """Changes where what would be imported changes, as far as one look can tell."""
        if isinstance(self.place, Path):
            if not self.place.is_file():
                raise OSError("it is no regular file")
            return f"{self.source}\0{self.place.read_text(encoding='latin-1')}"
        return f"{self.who}\0{self.place.value}"


def candidates(folder: Path, bundled: Path | None = None) -> Iterator[Candidate]:
    """Every plugin that there seems to be, files first.

    A file in `folder` takes the place of a bundled one of the same name.
    """
    own = sorted(folder.glob("*.py"))
    for path in own:
        yield Candidate(path.as_posix(), path.as_posix(), path)
    for path in sorted(bundled.glob("*.py")) if bundled else ():
        if path.name not in {file.name for file in own}:
            yield Candidate(f"{BUNDLED}{path.name}", f"{BUNDLED}{path.name}", path)
    blocked = {name.strip() for name in os.environ.get("CHAINFORGE_DISABLE_PLUGINS", "").split(",")}
    for entry_point in sorted(entry_points(group=hookspecs.PROJECT), key=lambda e: e.name):
        if entry_point.name not in blocked:
            source = _source(entry_point)
            # a distribution may have several
            yield Candidate(f"{source} ({entry_point.name})", source, entry_point)


def bundled_plugins() -> Path | None:
    """The folder of those that came with ChainForge; none where the project has its own code of it."""
    return None if is_checkout(Path()) else bundle() / FOLDER


def import_file(path: Path) -> ModuleType:
    """A plugin file as a module: `plugins/` is a folder of files, not a package."""
    if not path.is_file():  # opening a pipe would wait forever
        raise OSError("it is no regular file")
    name = f"chainforge_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _source(entry_point: EntryPoint) -> str:
    dist = entry_point.dist
    return f"{dist.name} {dist.version}" if dist else entry_point.value
