r"""Reward `math`: is the answer in the summary equal to the reference, formulas worked out? 1.0 or 0.0.

Numbers, choices, times and dates are compared as `correct` does. Formulas, lists, sets and intervals that are
not the same as they are written go to math-verify: `\sqrt{12}` is `2\sqrt{3}`, `(x+1)^2` is `x^2+2x+1`. It
runs in processes that are killed when they hang: a completion that takes longer than LIMIT_S is None, not
wrong, and the log counts it. None also where a prompt has no reference.

It needs the optional package: pip install 'chainforge-r1[math]'.
"""

import logging
import re
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import chainforge as cf

LIMIT_S = 3.0  # with the start of the next process, others wait for less than 6 s
LONGEST = 1_000  # characters of an answer; no formula that anybody checks is longer
AS_WRITTEN = ("number", "choice", "moment")  # kinds of answers in which nothing is to be worked out
NUMBER_AND_LETTER = re.compile(r"\s*-?\d+\s?[A-Za-z]\s*")  # 2k is a formula here, not 2,000
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
JOINED = re.compile(r"\s*(?:,|;|and|,\s*and)?\s*")
SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![a-z])|\$")
BASE = re.compile(r"\d\s?_\s?\{?\d")  # math-verify drops it
BARE_TOP = re.compile(r"\\[dtc]?frac\s*(\\[A-Za-z]+|\w)")  # \frac\pi4 is \frac{\pi}{4}
BARE_UNDER = re.compile(r"(\\frac\{[^{}]*\})\s*(\\[A-Za-z]+|\w)")
PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}")
WRAPPED = re.compile(
    r"\\(?:text|mathrm|mbox|textbf|operatorname)\s?\{[^{}]*\}|\\(?:begin|end)\{\w+\}|\\[A-Za-z]+"
)
HEDGED = re.compile(
    r"\b(?:not|never|about|approximately|roughly|around|nearly|at\s(?:least|most)|either|or|between)\b|n't\b|≈"
    r"|\\approx|\\sim\b"
)


def math(*, completion: str, answer: str | None, response_format: cf.TagFormat, **_: object) -> float | None:
    """1.0 or 0.0; None without a reference. It may take as long as it likes: who calls it kills it."""
    if answer is None:
        return None
    parsed = response_format.parse(completion)
    return float(parsed is not None and equals(parsed.summary, answer))


def equals(summary: str, answer: str) -> bool:
    """Whether the answer of a summary equals the reference: cheap comparisons first."""
    formula = NUMBER_AND_LETTER.fullmatch(answer)
    if not formula and cf.same_answer(summary, answer):
        return True
    if not formula and cf.answer_kind(answer) in AS_WRITTEN:
        return False
    given = formula_in(cf.marked_answer(summary))
    if BASE.search(given) or BASE.search(answer):
        return False  # 42_7 as it is written, or not at all
    return (
        bool(given)
        and len(given) <= LONGEST
        and not other_brackets(given, answer)
        and verified(given, answer)
    )


def formula_in(clause: str) -> str:
    """The one formula of a clause, or several joined by commas or `and`; empty if it says anything else."""
    if HEDGED.search(clause):
        return ""
    formulas = list(FORMULA.finditer(clause))
    if not formulas:
        return "" if PROSE.search(WRAPPED.sub(" ", clause)) else clause.strip().removesuffix(".")
    between = [clause[a.end() : b.start()] for a, b in pairwise(formulas)]
    around = clause[: formulas[0].start()] + clause[formulas[-1].end() :]
    if re.search(r"\d", around) or not all(map(JOINED.fullmatch, between)):
        return ""
    return ", ".join(next(filter(None, formula.groups())) for formula in formulas)


def other_brackets(given: str, answer: str) -> bool:
    """Whether two lists differ in their brackets, which math-verify lets pass."""
    lists = cf.answer_kind(given) == cf.answer_kind(answer) == "several"
    return lists and brackets(given) != brackets(answer)


def brackets(text: str) -> str:
    """The round and square brackets around a list in LaTeX, "" for none."""
    text = re.split(r"\\in(?![a-z])|=", SIZES.sub("", text))[-1].strip().removesuffix(".")
    return text[:1] + text[-1:] if text[:1] in ("(", "[") and text[-1:] in (")", "]") else ""


def verified(given: str, answer: str) -> bool:
    """What math-verify says."""
    from math_verify import verify

    gold, found = parsed_gold(answer), parse(given)
    return bool(gold and found) and verify(
        gold, found, float_rounding=12, timeout_seconds=None, allow_set_relation_comp=True
    )


@lru_cache(maxsize=10_000)
def parsed_gold(answer: str) -> list[Any]:
    return parse(answer)


def parse(formula: str) -> list[Any]:
    """The formula as math-verify reads it; nothing if it cannot."""
    from math_verify import parse as read

    text = formula.replace("$", "").replace(",\\!", "").replace("{,}", "").replace("\\!", "").rstrip(" .,;\n")
    text = BARE_UNDER.sub(r"\1{\2}", BARE_TOP.sub(r"\\frac{\1}", text))
    for units in (True, False):  # it takes the t of \sin t for tons
        if found := read(f"${text}$", targets(units), fallback_mode="no_fallback", parsing_timeout=None):
            return list(found)
    return []


@cache
def targets(units: bool) -> list[Any]:
    """How math-verify is to look for formulas: in LaTeX, and the box is ours to find."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that limits are ours to keep
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
    from math_verify import LatexExtractionConfig

    reading = NormalizationConfig(
        basic_latex=True, units=units, malformed_operators=True, nits=True, boxed="all", equations=False
    )
    return [LatexExtractionConfig(boxed_match_priority=-1, normalization_config=reading)]


def check_answer(answer: str) -> str | None:
    """What is wrong with a reference answer."""
    if not answer.strip():
        return "it is empty"
    if cf.answer_kind(answer) in AS_WRITTEN or parsed_gold(answer):
        return None
    return "math-verify cannot read it as a formula"


def ready() -> None:
    if find_spec("math_verify") is None:
        raise cf.ChainForgeError(
            "reward math needs the package math-verify", "pip install 'chainforge-r1[math]'"
        )


def prepare() -> None:
    """Import it, and read a formula: the first one takes long."""
    ready()
    verified(r"\sqrt{12}", r"2\sqrt{3}")


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    register(
        "math",
        math,
        per_sample=True,
        isolation="process",
        each_s=LIMIT_S,
        on_error="none",
        reading=cf.read_answer,
        ready=ready,
        prepare=prepare,
        check_answer=check_answer,
    )
