"""Which code a reward is: where it comes from, a digest of it, and the packages that it imports."""

import ast
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from chainforge.plugins import Plugins
from chainforge.project.code_digests import PACKAGE, digest_module, imports_of
from chainforge.project.lock_entry import origin


def grader_versions(plugins: Plugins, rewards: Iterable[str]) -> dict[str, dict[str, Any]]:
    """By name of the reward; for the record beside an evaluation."""
    entries = {name: plugins.pick("rewards", name) for name in rewards}
    return {
        name: origin(entry)
        | {"digest": digest_module(entry.module), "packages": package_versions(entry.module)}
        for name, entry in entries.items()
    }


def package_versions(module: ModuleType) -> dict[str, str]:
    """Versions of the distributions that a plugin's file imports, at its top or later, by import name.

    One whose distribution has another name than its package, hyphens aside, is left out.
    """
    tree = ast.parse(Path(str(module.__file__)).read_bytes())
    tops = {name.partition(".")[0] for name in imports_of(tree)} - {PACKAGE, *sys.stdlib_module_names}
    found = {}
    for top in sorted(tops):
        try:
            found[top] = version(top)
        except PackageNotFoundError:
            continue
    return found
