"""Broken on purpose: registers a number."""

from collections.abc import Callable

import chainforge as cf


@cf.hookimpl
def register_teachers(register: Callable[..., None]) -> None:
    register("constant", 1.0)
