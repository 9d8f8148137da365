"""Texts of models and strangers, made harmless before a person sees them."""

import re

# What a terminal or a browser obeys instead of showing it: control characters but line feed and tab, marks
# that turn the direction of text, line separators, invisible tags, and halves of characters.
OBEYED = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e007f]"
)


def defuse(text: str) -> str:
    """The same text with a visible sign for each character that would be obeyed.

    A control character becomes its picture (␛), any other its code point (⟨U+202E⟩). White space and the
    joiners that many scripts and emoji need stay as they are. Twice is the same as once.
    """
    return OBEYED.sub(lambda found: _sign(ord(found[0])), text)


def _sign(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
