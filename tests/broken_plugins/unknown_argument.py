"""Broken on purpose: a hook receives `register` and nothing else."""

from collections.abc import Callable
from typing import Any

import chainforge as cf


@cf.hookimpl
def register_rewards(register: Callable[..., None], settings: Any) -> None:
    register("unreachable", lambda completions: [0.0] * len(completions))
