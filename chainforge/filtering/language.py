"""Which scripts a text is written in: catches Chinese amid English, but not French amid English.

Notation is neutral: digits, punctuation, formulas, code, and a letter on its own, such as x or π.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from functools import lru_cache

CLOSING = {"```": "```", "`": "`", "$$": "$$", r"\[": r"\]", r"\(": r"\)"}
OPENING = re.compile(r"```|`|\$\$|\\\[|\\\(")
# As in pandoc: no space inside the dollars, so that two prices on a line are no formula.
INLINE = re.compile(r"\$(?!\s)[^$\n]++(?<!\s)\$(?!\d)|\\[A-Za-z]++")
CHARACTERS = {"Han", "Hiragana", "Katakana"}  # written without spaces: each character counts as a word
NAMES = {"Cjk": "Han", "Ideographic": "Han"}  # Unicode's word -> the script's


def script_share(text: str, scripts: Collection[str]) -> float:
    """The share of the text's words that are in one of these scripts, 0 to 1; 1 where it has no words."""
    counts = Counter(script_words(without_notation(text)))
    return sum(counts[script] for script in scripts) / counts.total() if counts else 1.0


def script_words(text: str) -> Iterator[str]:
    """The script of each word, in order. Where scripts meet a word ends; single letters are left out."""
    script, length = "", 0
    for character in text + " ":
        found = script_of(character)
        if found == "mark":  # an accent is part of the letter before it
            continue
        if found != script or found in CHARACTERS:
            if script in CHARACTERS or length > 1:
                yield script
            script, length = found, 0
        length += bool(found)


@lru_cache(maxsize=2**16)
def script_of(character: str) -> str:
    """ "Latin", "Han", …; "mark" for a combining mark, and "" for what belongs to no script."""
    category = unicodedata.category(character)
    if category[0] == "M":
        return "mark"
    if category[0] != "L" or unicodedata.decomposition(character).startswith(("<font>", "<super>", "<sub>")):
        return ""  # ² and 𝑥 are mathematics
    first, *rest = re.split("[ -]", unicodedata.name(character, "none"))
    if first in ("FULLWIDTH", "HALFWIDTH") and rest:
        first = rest[0]
    return NAMES.get(first.capitalize(), first.capitalize())


def without_notation(text: str) -> str:
    """The text without code and formulas. What is opened and never closed stays. Takes linear time."""
    parts, at, unclosed = [], 0, set()
    for opening in OPENING.finditer(text):
        if opening.start() < at or opening[0] in unclosed:
            continue
        end = text.find(CLOSING[opening[0]], opening.end())
        if end < 0:
            unclosed.add(opening[0])  # looking for each end again would take quadratic time
            continue
        parts.append(text[at : opening.start()])
        at = end + len(CLOSING[opening[0]])
    return INLINE.sub(" ", " ".join([*parts, text[at:]]))
