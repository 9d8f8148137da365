"""Whether a text gives the answer of a reference."""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Literal

from chainforge.answer.mark import meant
from chainforge.answer.moment import moment
from chainforge.answer.notation import plain_notation
from chainforge.answer.number import Number, only_number
from chainforge.answer.several import Several, several
from chainforge.answer.wording import choice, verdict, wording

Kind = Literal["number", "moment", "several", "choice", "formula"]
WORDS = re.compile(r"[^\W\d_]{2,}(?:[ '_-]?[^\W\d_]+){0,12}")
BARE = re.compile(r"(?:\S+ ?[=] ?)?[-+(]?\s?[$€£¥₹]?\s?-?[.\d][^=;]{0,400}")


def same_answer(summary: str, reference: str) -> bool:
    """Whether a text gives the reference answer, by the law of its kind, however it writes it."""
    given, wanted = meant(summary), plain_notation(reference)
    if not given.strip():
        return False
    return wording(given) == wording(wanted) or LAWS[answer_kind(reference)](given, wanted)


def answer_kind(reference: str) -> Kind:
    """What a reference answer is, and so how answers are held against it.

    "number": one number, with a unit at most; "moment": a time of day or a date; "several": a list, a set, a
    point or an interval; "choice": a letter or words, yes and no among them; "formula": anything else.
    """
    text = plain_notation(reference)
    if bare_number(text) is not None:
        return "number"
    if moment(text) is not None:
        return "moment"
    if several(text) is not None:
        return "several"
    return "choice" if choice(text) or WORDS.fullmatch(wording(text)) else "formula"


def same_number(given: str, wanted: str) -> bool:
    """A unit may be left out, not exchanged. `18%` is as right for 18 as for 0.18."""
    right, found = bare_number(wanted), only_number(given)
    if right is None or found is None or ((parts := several(given)) and parts.brackets):
        return False
    units = not found.unit or right.unit <= found.unit
    return units and (
        (found.value == right.value and like_percent(found, right)) or share(found) == share(right)
    )


def like_percent(found: Number, right: Number) -> bool:
    """Whether 18 and 18% may be one: below 1, a reference is the share itself."""
    return found.percent == right.percent or abs(right.value) >= 1


def share(number: Number) -> Fraction:
    """0.18 for 18%."""
    return number.value / 100 if number.percent else number.value


def bare_number(text: str) -> Number | None:
    """The number that a reference is, a unit behind it at most; None for a sentence with a number in it."""
    return only_number(text) if BARE.fullmatch(text) and len(text.split()) <= 6 else None


def same_moment(given: str, wanted: str) -> bool:
    right = moment(wanted)
    return right is not None and moment(given) == right


def same_parts(given: str, wanted: str) -> bool:
    """Part by part; the order does not count in a set, and brackets must be the same."""
    left, right = several(given), several(wanted)
    if (
        left is None
        or right is None
        or left.brackets != right.brackets
        or len(left.parts) != len(right.parts)
    ):
        return False
    pairs = zip(left.parts, right.parts, strict=True)
    if right.ordered:
        return all(wording(a) == wording(b) or same_number(a, b) for a, b in pairs)
    return keys(left) == keys(right)


def keys(parts: Several) -> list[str]:
    """The parts of a set in an order of their own."""
    return sorted(str(bare_number(part) or wording(part)) for part in parts.parts)


def same_choice(given: str, wanted: str) -> bool:
    """A letter in its usual dress, or a yes or no with its reason."""
    letter = choice(wanted) if len(wording(wanted)) <= 3 else None
    return (letter is not None and choice(given) == letter) or verdict(given) == wording(wanted)


LAWS: dict[Kind, Callable[[str, str], bool]] = {
    "number": same_number,
    "moment": same_moment,
    "several": same_parts,
    "choice": same_choice,
    "formula": same_choice,  # `x` is a formula as much as a letter
}
