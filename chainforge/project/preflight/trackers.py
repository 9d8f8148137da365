"""Whether the trackers that a run is to write to are installed."""

from collections.abc import Sequence
from importlib.util import find_spec

from chainforge.errors import ChainForgeError


def check_trackers(names: Sequence[str]) -> None:
    """Raise ChainForgeError where a package is missing, with the command that installs it."""
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ChainForgeError(f"runtime.trackers has {twice} twice", "name it once")
    if missing := [name for name in names if find_spec(name) is None]:
        raise ChainForgeError(
            f"runtime.trackers names {missing[0]}, and the package {missing[0]} is not installed",
            f"install it (pip install {' '.join(missing)}), or take it out of runtime.trackers",
        )
