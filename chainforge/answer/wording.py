"""Words, letters and formulas as they compare: without case, needless blanks, quotes and a closing stop."""

import re

from chainforge.records import plain

PICKS = r"(?:(?:i|we) (?:would |will )?(?:choose|pick|select|go with) )?"
CHOICE = re.compile(
    rf"{PICKS}(?:(?:option|choice|answer) )?(?:\(([a-z])\)|([a-z]))[.):]?"
    r"(?: is (?:the )?(?:correct|right|best)(?: (?:option|choice|answer|one))?[.]?)?"
)
CHOICE_AND_TEXT = re.compile(
    rf"{PICKS}(?:(?:option|choice|answer) )?(?:\(([a-z])\)|([a-z])(?:[.):]| \u2014)) (.+)"
)
ANOTHER = re.compile(r"\bor\b|\band\b|(?<!\w)\(?[a-z][.):](?!\w)")
YES = re.compile(r"(yes|no|true|false)[,.:;] .*")


def wording(text: str) -> str:
    """The normal form of a text in plain notation; equal texts have equal ones. Case counts in LaTeX."""
    text = " ".join(text.split())
    text = text if "\\" in text else text.casefold()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    text = re.sub(r"(?<=[^\W\d]{2})!$", "", text.removesuffix(".")).strip()
    return re.sub(r"(?<![^\W_]) | (?![^\W_])", "", text)  # a blank counts between letters and digits


def choice(text: str) -> str | None:
    """The letter of `B`, `(b)`, `Option B` and `B) Paris`; None for anything else, such as two of them."""
    text = plain(text)
    if found := CHOICE.fullmatch(text):
        return found[1] or found[2]
    found = CHOICE_AND_TEXT.fullmatch(text)
    return None if found is None or ANOTHER.search(found[3]) else found[1] or found[2]


def verdict(text: str) -> str | None:
    """`yes` of `Yes, it is.`; so with no, true and false; None where another of them follows."""
    found = YES.fullmatch(re.split(r",? (?:since|because|as) ", plain(text))[0] + ", ")
    several = found and len(set(re.findall(r"\b(?:yes|no|not|true|false)\b", found[0]))) > 1
    return None if found is None or several else found[1]
