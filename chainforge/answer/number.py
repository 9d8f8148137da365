"""Numbers in a text: `-$1,042.50`, `2 1/2`, `1.5e3`, `5^2`, `18 million`, `50%`, `18 m^2`.

A number that stands in anything else, such as `18!`, `√18`, `18π`, `±18`, `> 18`, `about 18` or `not 18`, is
none that can be read. Nothing is worked out: `9*2` is two numbers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

MOST = 100  # times that a text may repeat its number
DIGITS = 4_000  # longer ones are compared as texts: int() refuses them

PLAIN = r"(?:(?:\d{1,3}(?:[, '_]\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
TERM = re.compile(
    rf"(?P<whole>\d+) (?P<part>\d+)/(?P<parts>\d+)(?![\d/.,])"
    rf"|(?P<top>{PLAIN})\s?/\s?(?P<under>{PLAIN})(?![\d/])"
    rf"|(?P<lone>{PLAIN})(?:[eE](?P<e>[-+]?\d{{1,4}})(?!\w))?"
    r"(?:\s?[*x]\s?10\^\(?(?P<ten>[-+]?\d{1,4})\)?)?(?:\^\(?(?P<power>[-+]?\d{1,4})\)?)?"
)
BEFORE = re.compile(
    r"(?P<sign>\b(?:minus|negative)\s|[-+]\s?)?"
    r"(?P<currency>(?:\b(?:US|A|C)?[$]|[$€£¥₹]|\b(?:USD|EUR|GBP|Rs\.?)(?=\s))\s?)?(?P<inner>-\s?)?$",
    re.IGNORECASE,
)
BOUND = re.compile(
    r"\b(?:at\s(?:least|most)|(?:more|less|fewer|greater|larger|smaller|bigger|other)\sthan|up\sto|under|over"
    r"|above|below|about|around|roughly|approximately|approx\.?|nearly|almost|twice|double|triple"
    r"|half(?:\sof)?|root(?:\sof)?|between|times|plus|base|mod|sin|cos|tan|log|ln|exp)\s?$"
    r"|\\[A-Za-z]+\s?$|\w\($|[±∓√<>≤≥≠≈~^|\\*/+π!]\s?$|(?<![\w'])[b-hj-z]\s?$|[\d)]$|[-+∞] ?\($|∞, ?$",
    re.IGNORECASE,
)
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
SCALES |= {"dozen": 12, "k": 10**3, "K": 10**3, "M": 10**6, "mn": 10**6, "B": 10**9, "bn": 10**9}
SCALE = re.compile(r"\s?(hundred|thousand|million|billion|trillion|dozen)s?\b|(k|K|M|mn|B|bn)\b")
PERCENT = re.compile(r"\s?(?:%|per\s?cent\b)", re.IGNORECASE)
WITHIN = re.compile(
    r"\s?[!^*√π±∓_|<>≤≥≠≈~\\+∞∈]|[(\[]|[.,:'/-]\s?\d|\s?/\s?[\d(√π]|\s?[-+]\s?(?:[A-Za-z]\b|[\d(√])"
    r"|\s?(?:squared|cubed|factorial|times|plus|minus|divided|pi|or|choose|mod)\b",
    re.IGNORECASE,
)
UNIT_WORD = re.compile(r"\s?/?\s?((?:[^\W\d_]|[°$€£¥₹])[\w°'^/]*)")
UNITS = {
    "$": "dollar dollars usd us$", "€": "euro euros eur", "£": "pound pounds gbp", "cent": "cents ¢",
    "mm": "millimeter millimeters millimetre millimetres", "m": "meter meters metre metres",
    "cm": "centimeter centimeters centimetre centimetres", "in": "inch inches", "ft": "foot feet",
    "km": "kilometer kilometers kilometre kilometres", "mi": "mile miles", "°": "degree degrees deg",
    "g": "gram grams", "kg": "kilogram kilograms kilo kilos", "mg": "milligram milligrams", "lb": "lbs",
    "oz": "ounce ounces", "l": "liter liters litre litres", "ml": "milliliter milliliters millilitre",
    "s": "second seconds sec secs", "min": "minute minutes mins", "h": "hour hours hr hrs", "w": "watt watts",
    "j": "joule joules", "n": "newton newtons", "v": "volt volts", "°c": "celsius", "°f": "fahrenheit",
    "c": "", "f": "", "mph": "", "kmh": "km/h",
}  # fmt: skip
KNOWN = {word: unit for unit, words in UNITS.items() for word in (unit, *words.split())}
NEGATED = re.compile(
    r"\b(?:not|never|neither|nor|cannot|wrong|incorrect|unless|except|without)\b|n't\b", re.IGNORECASE
)
SENTENCE = re.compile(r"(?<=[^\W\d])[.!?](?=\s|$)|(?<=\d)[.?](?=\s[^\d\s]|$)|[;\n]")
SUM = "0123456789.,$*/+^%()- "  # what a sum is written in
NAME = re.compile(r"(?:^|(?<=[\s(,:]))(?:[^\W\d]\w{0,24}(?:\([^()=]{0,24}\))?)\s?$")


@dataclass(frozen=True, slots=True)
class Number:
    """A number with what it counts; `50%` has the value 50."""

    value: Fraction
    percent: bool = False
    unit: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return str(self.value)


def only_number(text: str) -> Number | None:
    """The number in a text in plain notation; None if it has several, none, or one that cannot be read."""
    found, count = None, 0
    for sentence in SENTENCE.split(text):
        before = count
        for number in numbers(sentence):
            count += 1
            if number is None or (found and number.value != found.value) or count > MOST:
                return None
            found = found or number
        if count > before and NEGATED.search(sentence):
            return None
    return found


def numbers(sentence: str) -> Iterator[Number | None]:
    """Each number of a sentence; None for one that cannot be read, or for an equation."""
    text = without_sums(sentence)
    if text is None:
        yield None
    for term in TERM.finditer(text or ""):
        before = term.string[max(0, term.start() - 40) : term.start()]
        if re.search(r"(?:[A-Za-zµ_]|[A-Za-z]\^)$", before) and not re.search(r"\bUS?D?$", before):
            continue  # part of a word: H2O, cm^2
        yield number(term, before, term.string)


def number(term: re.Match[str], before: str, sentence: str) -> Number | None:
    value, lead = value_of(term), BEFORE.search(before)
    if value is None or lead is None or not starts(lead, before):
        return None
    if (lead["sign"] or " ").lower()[0] in "-mn" or lead["inner"]:
        value = -value
    at = term.end()
    if scale := SCALE.match(sentence, at):
        value, at = value * SCALES[scale[1] or scale[2]], scale.end()
    if percent := PERCENT.match(sentence, at):
        at = percent.end()
    if f"{before[: lead.start()][-1:]}{sentence[at : at + 1]}" in ("(,", "[,", "{,"):
        return None  # the first of several
    if WITHIN.match(sentence, at) or (unit := unit_of(sentence, at)) is None:
        return None
    money = {KNOWN.get(sign, sign) for sign in (lead["currency"] or "").lower().split()}
    return Number(value, percent is not None, unit | money)


def starts(lead: re.Match[str], before: str) -> bool:
    """Whether what stands before a number leaves it a number, and its sign a sign."""
    rest = before[: lead.start()]
    if re.search(r"\d[.,:'/]$", rest) or BOUND.search(rest):
        return False
    sign = lead["sign"] or ""
    if not sign or sign[0].isalpha() or not rest.rstrip() or rest.rstrip()[-1] in "=:([{,∈\"'":
        return True
    return rest[-1].isspace() and not sign[-1].isspace()  # `is -18`; `Total - 18` may be a dash


def value_of(term: re.Match[str]) -> Fraction | None:
    """What a term is worth; None if that is nothing, or too long to say."""
    if term.end() - term.start() > DIGITS:
        return None
    if term["whole"]:
        whole, part, parts = (int(term[name]) for name in ("whole", "part", "parts"))
        return whole + Fraction(part, parts) if part < parts else None
    if term["top"]:
        under = decimal(term["under"])
        return decimal(term["top"]) / under if under else None
    value, power = decimal(term["lone"]), int(term["power"] or 1)
    tens = int(term["e"] or 0) + int(term["ten"] or 0)
    if abs(power) * len(term["lone"]) > DIGITS or abs(tens) > DIGITS or (not value and power <= 0):
        return None
    if term["ten"] and term["power"]:
        return None
    return Fraction(value**power) * Fraction(10) ** tens


def decimal(text: str) -> Fraction:
    return Fraction(re.sub("[, '_]", "", text))


def unit_of(sentence: str, at: int) -> frozenset[str] | None:
    """The words behind a number, up to four; None where a letter makes it another number: `18x`."""
    words: list[str] = []
    while len(words) < 4 and (word := UNIT_WORD.match(sentence, at)):
        text = word[1].lower()
        glued = not words and word.start(1) == at
        if KNOWN.get(text) is None and (
            (glued and text[0].isascii()) or (len(text) == 1 and text not in "ai")
        ):
            return None
        if "^" not in text and text in ("and", "or", "but"):
            break
        words.append(KNOWN.get(text, text))
        at = word.end()
    return frozenset(words)


def without_sums(sentence: str) -> str | None:
    """`9*2 = 18` and `x = 18` as ` = 18`; None for an equation that is yet to be solved: `2*x = 18`."""
    *sides, right = re.split(r"\s?=+\s?", sentence)
    left = [without_end(side) for side in sides]
    return None if None in left else " = ".join([*map(str, left), right])


def without_end(side: str) -> str | None:
    """A text without the name or the sum at its end; None where a letter is part of the sum."""
    if name := NAME.search(side[-60:]):
        return side[: len(side) - len(name[0])]
    rest = side.rstrip(SUM)
    return None if re.search(r"(?:^|\W|\d)[^\W\d_]$", rest) else rest
