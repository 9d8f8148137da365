r"""Reward `numeric`: is the number in the summary the reference? 1.0 or 0.0; None without a reference.

It is `correct` for numbers alone: every reference must be one number, with a unit at most, or no step starts.
Signs, separators, fractions, percent, currency and powers of ten are read; a number that is only part of an
expression, such as `18x` or `9*2`, is no answer.

>>> supercot = cf.tag_format("supercot")
>>> texts = [supercot.render("6*3=18", text) for text in ("**$18.00**", r"\boxed{18\,000}", "18x")]
>>> numeric(completions=texts, answer=["18", "18000", "18"], response_format=supercot)
[1.0, 1.0, 0.0]
"""

from collections.abc import Callable

import chainforge as cf


def numeric(
    *, completions: list[str], answer: list[str | None], response_format: cf.TagFormat, **_: object
) -> list[float | None]:
    """One number per completion; what cannot be parsed is worth 0.0."""
    parsed = map(response_format.parse, completions)
    return [
        None if reference is None else float(p is not None and cf.same_answer(p.summary, reference))
        for p, reference in zip(parsed, answer, strict=True)
    ]


def check_answer(answer: str) -> str | None:
    """What is wrong with a reference answer."""
    return None if cf.answer_kind(answer) == "number" else "it is not one number"


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    register("numeric", numeric, reading=cf.read_answer, check_answer=check_answer)
