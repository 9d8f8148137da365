"""Broken on purpose: it defines a reward, and registers nothing."""

from typing import Any


def register_rewards(register: Any) -> None:
    register("unreachable", lambda completions: [0.0] * len(completions))
