"""Broken on purpose: registers one name twice."""

from collections.abc import Callable

import chainforge as cf


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    register("twice", lambda completions: [0.0] * len(completions))
    register("twice", lambda completions: [1.0] * len(completions))
