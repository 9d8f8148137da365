"""Broken on purpose: its hook ends the process."""

import sys
from collections.abc import Callable

import chainforge as cf


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    sys.exit("no licence key")
