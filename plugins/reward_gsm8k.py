"""Rewards `gsm8k_strict` and `gsm8k_lenient`: the number after `####`, and the last number of a text.

They read the whole completion, and know no tags: for models that answer as GSM8K's own solutions end,
`#### 18`. The strict one is the rule that verl trains and tests with (volcengine/verl,
verl/utils/reward_score/gsm8k.py): of the last 300 characters, the last `#### ` with a number right behind
it, and it must be written as the reference is, commas aside. The lenient one says how much of a gain is the
format.

>>> texts = ["6*3=18 #### 18", "6*3=18, so $18.", "6*3=18 #### $18"]
>>> gsm8k_strict(completions=texts, answer=["18"] * 3)
[1.0, 0.0, 0.0]
>>> gsm8k_lenient(completions=texts, answer=["18"] * 3)
[1.0, 1.0, 1.0]
"""

import re
from collections.abc import Callable

import chainforge as cf

LAST = 300  # characters in which the strict one looks
MARKED = re.compile(r"#### (-?[0-9.,]+)")
NUMBER = re.compile(r"-?[0-9][0-9,]*(?:\.[0-9]+)?")


def gsm8k_strict(*, completions: list[str], answer: list[str | None], **_: object) -> list[float | None]:
    """One number per completion: 1.0 or 0.0; None without a reference."""
    return [
        None if reference is None else float(marked(text) == reference.replace(",", ""))
        for text, reference in zip(completions, answer, strict=True)
    ]


def gsm8k_lenient(*, completions: list[str], answer: list[str | None], **_: object) -> list[float | None]:
    """One number per completion: 1.0 or 0.0; None without a reference."""
    return [
        None if reference is None else float(is_last(text, reference))
        for text, reference in zip(completions, answer, strict=True)
    ]


def marked(text: str) -> str | None:
    """What follows the last mark, without commas; None where nothing does."""
    found = MARKED.findall(text[-LAST:])
    return found[-1].replace(",", "") if found else None


def is_last(text: str, reference: str) -> bool:
    """Whether the last number of the text is worth the reference."""
    found = NUMBER.findall(text)
    return bool(found) and cf.same_answer(found[-1].rstrip(","), reference)


def check_answer(answer: str) -> str | None:
    """What is wrong with a reference answer."""
    return None if cf.answer_kind(answer) == "number" else "it is not one number"


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    register("gsm8k_strict", gsm8k_strict, check_answer=check_answer)
    register("gsm8k_lenient", gsm8k_lenient, check_answer=check_answer)
