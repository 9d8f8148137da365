"""Read an answer: what kind of thing it is, and its normal form."""

from datetime import date, time

from chainforge.answer.mark import meant
from chainforge.answer.moment import moment
from chainforge.answer.number import Number, only_number
from chainforge.answer.several import Several, several
from chainforge.answer.wording import choice, verdict, wording

Meaning = Number | Several | date | time | str


def meaning(text: str) -> Meaning:
    """What a text in plain notation means; a text that is nothing else is its own wording."""
    return moment(text) or several(text) or only_number(text) or wording(text)


def read_answer(summary: str) -> str | None:
    """The answer of a text in its normal form, the same for `18`, `$18.00` and `The answer is 18.`; units do
    not count. None for a text without an answer."""
    return normal(meant(summary)) or None


def normal(text: str) -> str:
    if named := choice(text) or verdict(text):
        return named
    found = meaning(text)
    if isinstance(found, Several):
        parts = [str(only_number(part) or wording(part)) for part in found.parts]
        inside = ", ".join(parts if found.ordered else sorted(parts))
        return f"{found.brackets[:1]}{inside}{found.brackets[1:]}"
    return found if isinstance(found, str) else str(found)
