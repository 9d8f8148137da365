"""What one plugin registers. The only file that knows pluggy."""

import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pluggy

from chainforge import hookspecs
from chainforge.errors import unknown
from chainforge.plugins.entry import ROLES, Entry, Key, role_title
from chainforge.reward_options import RewardOptions

NAME = re.compile(r"[\w-]+")  # what `dvc exp run -S` and the columns of the metrics can hold
API = "CHAINFORGE_API"  # the constant with which a plugin says for which version it was written


class Taken(ValueError):
    """A name that another plugin has."""

    def __init__(self, key: Key, owner: str) -> None:
        super().__init__(f"the name {key[1]!r} is already taken by {owner}")
        self.key, self.owner = key, owner


def register_plugin(source: str, module: ModuleType, taken: Mapping[Key, Entry]) -> dict[Key, Entry]:
    """Everything one plugin registers, or nothing: an error half-way leaves no trace.

    Raises Taken for a name that another has, unless one of the two asks to override.
    """
    _check_version(module)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    manager.check_pending()  # a misspelt hook would otherwise be ignored in silence
    if not manager.get_hookcallers(module):
        raise ValueError("has no @cf.hookimpl function")
    new: dict[Key, Entry] = {}
    for role in ROLES:

        def register(
            name: str, component: Any, *, override: bool = False, _role: str = role, **options: Any
        ) -> None:
            _check_claim(_role, name, component, override, options)
            if mine := new.get((_role, name)):
                raise Taken((_role, name), mine.source)
            owner = taken.get((_role, name))
            if owner and owner.override == override:
                raise Taken((_role, name), owner.source)
            if owner and owner.override:
                return
            displaced = owner.source if owner else ""
            new[_role, name] = Entry(_role, name, component, options, source, module, override, displaced)

        getattr(manager.hook, f"register_{role}")(register=register)
    return new


def _check_version(module: ModuleType) -> None:
    version = getattr(module, API, hookspecs.API_VERSION)
    if version != hookspecs.API_VERSION:
        newer = isinstance(version, int) and version > hookspecs.API_VERSION
        raise ValueError(
            f"{API} is {version!r}, and this ChainForge has version {hookspecs.API_VERSION}: "
            f"{'upgrade ChainForge' if newer else 'bring the plugin up to date'}, or install the fitting one"
        )


def _check_claim(role: str, name: Any, component: Any, override: Any, options: Mapping[str, Any]) -> None:
    if not isinstance(name, str):
        raise TypeError(f"a name is a text, not {name!r:.60}")
    if not NAME.fullmatch(name):
        raise ValueError(f"the name {name!r:.60} cannot be: use letters, digits, _ and -")
    if not callable(component):
        raise TypeError(f"{role} {name!r} is not callable")
    if type(override) is not bool:
        raise TypeError(f"override must be True or False, not {override!r:.60}")
    if role == "rewards":
        RewardOptions.of(options)
    elif options:
        stranger = unknown(f"option of a {role_title(role)}", min(options), ["override"])
        raise TypeError(str(stranger).replace("\n  ->", ";"))
