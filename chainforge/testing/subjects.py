"""What a contract is tried on: a registered name, a plugin module, or a bare function or class."""

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from chainforge.config.loading import PARAMS, load_settings, read_params
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.plugins import Entry, Plugins, load_plugins, register_plugin
from chainforge.response import TagFormat
from chainforge.run.step import Step

Component = Any  # a name, a module, a function or a class


class Bench(Step):
    """A step that leaves no trace: what a reward logs is dropped."""

    def log(self, name: str, value: Any) -> None:
        """Drop it."""


def bench() -> Bench:
    """The settings of the active params.yaml where there is one, else the defaults."""
    if not PARAMS.is_file():
        return Bench("check", RunSettings(), RuntimeSettings())
    params = read_params()
    run = load_settings(RunSettings, "run") if "run" in params else RunSettings()
    runtime = load_settings(RuntimeSettings, "runtime") if "runtime" in params else RuntimeSettings()
    return Bench("check", run, runtime)


def response_format() -> TagFormat:
    """The active one."""
    return bench().response_format


def entry_of(role: str, what: Component, options: Mapping[str, Any] | None = None) -> Entry:
    """The entry to try. Raises ChainForgeError for an unknown name, AssertionError for a wrong module."""
    if isinstance(what, Entry):
        return what
    if isinstance(what, str):
        return load_plugins().pick(role, what)
    if isinstance(what, ModuleType):
        found = register_plugin(what.__name__, what, {})
        mine = [entry for (kind, _), entry in found.items() if kind == role]
        if len(mine) != 1:
            names = ", ".join(entry.name for entry in mine) or "none"
            raise AssertionError(
                f"{what.__name__} has not one of {role}, but: {names}; give the one to check"
            )
        return mine[0]
    name = getattr(what, "__name__", type(what).__name__)
    module = sys.modules[getattr(what, "__module__", "builtins")]
    return Entry(role, name, what, dict(options or {}), module.__name__, module)


def alone(entry: Entry) -> Plugins:
    """Plugins that consist of this one."""
    return Plugins({(entry.role, entry.name): entry})
