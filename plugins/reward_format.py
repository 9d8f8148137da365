"""Reward `format`: does a completion keep to the response format, with something in both parts?

>>> supercot = cf.tag_format("supercot")
>>> format_reward(completions=[supercot.render("6*3=18", "18"), "18"], response_format=supercot)
[1.0, 0.0]
"""

from collections.abc import Callable

import chainforge as cf


def format_reward(
    *, completions: list[str], response_format: cf.TagFormat, **_: object
) -> list[float | None]:
    """1.0 or 0.0 per completion."""
    parsed = map(response_format.parse, completions)
    return [float(bool(p and p.reasoning.strip() and p.summary.strip())) for p in parsed]


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    register("format", format_reward)
