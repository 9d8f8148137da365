"""Broken on purpose: registers two components and then raises; neither may be left behind."""

from collections.abc import Callable

import chainforge as cf


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    register("half", lambda completions: [0.0] * len(completions))


@cf.hookimpl
def register_teachers(register: Callable[..., None]) -> None:
    register("half", object)
    raise KeyError("the other half")
