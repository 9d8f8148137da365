"""Broken on purpose: its hook raises before it registers anything."""

from collections.abc import Callable

import chainforge as cf


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    raise RuntimeError("no licence key\nin the environment")
