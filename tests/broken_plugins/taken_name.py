"""Broken on purpose: `first` is the name of another plugin's reward. `fresh` must not survive either."""

from collections.abc import Callable

import chainforge as cf


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    register("fresh", lambda completions: [0.0] * len(completions))
    register("first", lambda completions: [0.0] * len(completions))
