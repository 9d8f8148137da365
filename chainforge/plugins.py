"""Find, check and pick plugins. The only file that knows pluggy.

A plugin that fails to import, raises while it registers, misspells a hook or claims a taken name
never breaks the others: it is reported, and is an error only where a step selects it.
"""

import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy
from pydantic import TypeAdapter, ValidationError

from chainforge import hookspecs
from chainforge.errors import ChainForgeError, unknown

ROLES = ("rewards", "prompt_sources", "teachers", "student_models")
FOLDER = Path("plugins")
CALL_ARGUMENTS = {"split", "n", "seed"}  # passed by ChainForge, not settings


@dataclass(frozen=True, slots=True)
class Entry:
    """One named component: what was registered, and where it comes from."""

    role: str
    name: str
    component: Any
    options: dict[str, Any]
    source: str  # "plugins/reward_format.py" or "distribution 1.2.0"
    module: ModuleType


@dataclass(frozen=True, slots=True)
class Plugins:
    """All components by role and name, and the plugins that could not be used, with the reason."""

    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)  # by file, or distribution and entry point

    def names(self, role: str) -> list[str]:
        """Every name that can be selected for a role."""
        return sorted(name for kind, name in self.entries if kind == role)

    def pick(self, role: str, name: str) -> Entry:
        """The component of that name, or an error with the nearest name and any broken plugin."""
        if (role, name) in self.entries:
            return self.entries[role, name]
        error = unknown(role_title(role), name, self.names(role))
        if self.broken:
            reasons = "; ".join(f"{source}: {reason}" for source, reason in sorted(self.broken.items()))
            raise ChainForgeError(error.problem, f"{error.fix}\n  -> these plugins did not load: {reasons}")
        raise error


def role_title(role: str) -> str:
    """A role in the singular, as messages name it: "prompt source"."""
    return role.removesuffix("s").replace("_", " ")


def load_plugins(folder: Path = FOLDER) -> Plugins:
    """Bundled and project-local files of `folder`, then installed packages (group `chainforge`)."""
    plugins = Plugins()
    for who, source, module in _modules(folder, plugins.broken):
        try:
            new = registered(source, module, plugins.entries)
        except (Exception, SystemExit) as error:  # whatever a stranger's plugin does, the others must live
            plugins.broken[who] = _reason(error)
        else:
            plugins.entries.update(new)
    return plugins


def _modules(folder: Path, broken: dict[str, str]) -> Iterator[tuple[str, str, ModuleType]]:
    """Each plugin that could be imported: what it is reported as, its source, its module."""
    for path in sorted(folder.glob("*.py")):
        source = path.as_posix()
        try:
            yield source, source, import_file(path)
        except (Exception, SystemExit) as error:
            broken[source] = _reason(error)
    blocked = {name.strip() for name in os.environ.get("CHAINFORGE_DISABLE_PLUGINS", "").split(",")}
    for entry_point in sorted(entry_points(group=hookspecs.PROJECT), key=lambda e: e.name):
        source = _source(entry_point)
        who = f"{source} ({entry_point.name})"  # a distribution may have several
        if entry_point.name in blocked:
            continue
        try:
            yield who, source, _load(entry_point)
        except (Exception, SystemExit) as error:
            broken[who] = _reason(error)


def import_file(path: Path) -> ModuleType:
    """A plugin file as a module: `plugins/` is a folder of files, not a package."""
    name = f"chainforge_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _load(entry_point: EntryPoint) -> ModuleType:
    loaded = entry_point.load()
    if not isinstance(loaded, ModuleType):
        raise TypeError(f"the entry point must name a module, not {entry_point.value!r}")
    return loaded


def _source(entry_point: EntryPoint) -> str:
    dist = entry_point.dist
    return f"{dist.name} {dist.version}" if dist else entry_point.value


def registered(
    source: str, module: ModuleType, taken: Mapping[tuple[str, str], Entry]
) -> dict[tuple[str, str], Entry]:
    """Everything one plugin registers, or nothing: an error half-way leaves no trace."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    manager.check_pending()  # a misspelt hook would otherwise be ignored in silence
    if not manager.get_hookcallers(module):
        raise ValueError("has no @cf.hookimpl function")
    new: dict[tuple[str, str], Entry] = {}
    for role in ROLES:

        def register(name: str, component: Any, *, _role: str = role, **options: Any) -> None:
            if not callable(component):
                raise TypeError(f"{_role} {name!r} is not callable")
            owner = taken.get((_role, name)) or new.get((_role, name))
            if owner:
                raise ValueError(f"the name {name!r} is already taken by {owner.source}")
            if _role == "rewards":
                hookspecs.RewardOptions.of(options)
            new[_role, name] = Entry(_role, name, component, options, source, module)

        getattr(manager.hook, f"register_{role}")(register=register)
    return new


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")


def plugin_settings(entry: Entry, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a factory, checked against its signature; `Path` ones become paths."""
    where = f"{role_title(entry.role)} {entry.name!r} ({entry.source})"
    try:
        parameters = inspect.signature(entry.component, eval_str=True).parameters
    except NameError as error:
        raise ChainForgeError(
            f"{where}: {error} in an annotation", "import it at the top of the plugin"
        ) from error
    known = {
        name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY and name not in CALL_ARGUMENTS
    }
    checked: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in known:
            stranger = unknown("setting", name, known)
            raise ChainForgeError(f"{where}: {stranger.problem}", stranger.fix)
        try:
            checked[name] = TypeAdapter(_annotation(known[name])).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise ChainForgeError(
                f"{where}: {name} is {value!r}: {message}", "correct it in params.yaml"
            ) from None
    missing = [name for name, p in known.items() if p.default is p.empty and name not in settings]
    if missing:
        raise ChainForgeError(
            f"{where} needs the setting {missing[0]!r}", "add it beside `plugin` in params.yaml"
        )
    return checked


def _annotation(parameter: inspect.Parameter) -> Any:
    return Any if parameter.annotation is parameter.empty else parameter.annotation
