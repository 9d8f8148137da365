"""Reward `choice`: is the letter or word in the summary the reference? 1.0 or 0.0; None without a reference.

A reference is a letter, or words: `B`, `Yes`, `Tuesday`. Where prompts have a column `choices`, the texts of
A, B and so on, an answer may give the text in place of the letter, and a letter with another's text is wrong.

>>> supercot = cf.tag_format("supercot")
>>> texts = [supercot.render("so", text) for text in ("**B) Rome**", "A or B", "Rome")]
>>> choice(completions=texts, answer=["B"] * 3, response_format=supercot, choices=[["Oslo", "Rome"]] * 3)
[1.0, 0.0, 1.0]
"""

import re
import string
from collections.abc import Callable, Sequence

import chainforge as cf

LETTERED = re.compile(r"[*\s]*\(?([A-Za-z])[).:]\s*(.+?)[*.\s]*", re.DOTALL)


def choice(
    *,
    completions: list[str],
    answer: list[str | None],
    response_format: cf.TagFormat,
    choices: list[Sequence[str] | None] | None = None,
    **_: object,
) -> list[float | None]:
    """One number per completion; what cannot be parsed is worth 0.0."""
    options = choices if choices is not None else [None] * len(completions)
    parsed = map(response_format.parse, completions)
    return [
        None if reference is None else float(p is not None and chosen(p.summary, reference, texts or ()))
        for p, reference, texts in zip(parsed, answer, options, strict=True)
    ]


def chosen(summary: str, reference: str, texts: Sequence[str]) -> bool:
    """Whether a summary names the right letter, or its text, and nothing that contradicts it."""
    labelled = dict(zip(string.ascii_uppercase, texts, strict=False))
    right = next((letter for letter in labelled if cf.same_answer(letter, reference)), None)
    right = right or next((letter for letter, text in labelled.items() if text == reference), None)
    if right is None:
        return cf.same_answer(summary, reference)
    others = [text for letter, text in labelled.items() if letter != right]
    if (both := LETTERED.fullmatch(cf.marked_answer(summary))) and any(
        cf.same_answer(both[2], text) for text in others
    ):
        return False
    return cf.same_answer(summary, right) or cf.same_answer(summary, labelled[right])


def check_answer(answer: str) -> str | None:
    """What is wrong with a reference answer."""
    return None if cf.answer_kind(answer) == "choice" else "it is neither a letter nor words"


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    register("choice", choice, reading=cf.read_answer, check_answer=check_answer)
