"""Broken on purpose: the hook is called register_rewards."""

from collections.abc import Callable

import chainforge as cf


@cf.hookimpl
def register_reward(register: Callable[..., None]) -> None:
    register("unreachable", lambda completions: [0.0] * len(completions))
