"""Load one plugin file as ChainForge does: `plugins/` is a folder of files, not a package."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).parents[2] / "plugins"


def load_plugin(name: str) -> ModuleType:
    """The module of `plugins/NAME.py`."""
    full_name = f"chainforge_plugins_{name}"
    if full_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(full_name, FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[full_name] = module
        spec.loader.exec_module(module)
    return sys.modules[full_name]


def registered(name: str, hook: str) -> dict[str, Callable[..., Any]]:
    """What the hook of `plugins/NAME.py` registers, by name."""
    found: dict[str, Callable[..., Any]] = {}

    def register(name: str, component: Callable[..., Any], **_: object) -> None:
        found[name] = component

    getattr(load_plugin(name), hook)(register)
    return found
