r"""Reward `correct`: is the answer in the summary right? 1.0 or 0.0; None where a prompt has no right answer.

The answer is what the last `\boxed{…}` holds, else what follows the last "answer is", else the only number
there is: a summary with several numbers and no such mark is wrong, so that guessing many does not pay.
Answers are compared by what they mean: `1,042`, `$18`, `18.0`, `1/2` and `50%` are numbers, `(1, 2]` is an
interval, `3:30 p.m.` a time. docs/grading.md has all of it.
A prompt without a single right answer brings a `check` instead: a rule and its settings, see RULES.

>>> supercot = cf.tag_format("supercot")
>>> texts = [supercot.render("6*3=18", f"The answer is {n} apples.") for n in (18, "$18.0", "17 or 18")]
>>> correct(completions=texts, answer=["18"] * 3, response_format=supercot)
[1.0, 1.0, 0.0]
"""

import ast
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import chainforge as cf

GREETINGS = {"hello", "hi", "hey", "welcome", "greetings", "good"}
SIGNS = str.maketrans({"\u2212": "-", "\u00d7": "*", "\u00f7": "/"})


def correct(
    *,
    completions: list[str],
    answer: list[str | None],
    check: list[dict[str, Any] | None] | None = None,
    response_format: cf.TagFormat,
    **_: object,
) -> list[float | None]:
    """One number per completion; what cannot be parsed is worth 0.0."""
    checks = check if check is not None else [None] * len(completions)
    return [
        grade(response_format.parse(text), reference, rule)
        for text, reference, rule in zip(completions, answer, checks, strict=True)
    ]


def grade(parsed: cf.Parsed | None, reference: str | None, check: Mapping[str, Any] | None) -> float | None:
    if reference is None and check is None:
        return None
    if parsed is None:
        return 0.0
    summary = parsed.summary
    right = reference is None or cf.same_answer(summary, reference)
    return float(right and (check is None or passes(summary, check)))


def plain(text: str) -> str:
    """What the last box holds, else all of it, without needless white space and a closing full stop."""
    return " ".join(cf.boxed(text).split()).removesuffix(".")


def passes(summary: str, check: Mapping[str, Any]) -> bool:
    """Whether a summary obeys a check. Raises ChainForgeError for a check that is not one."""
    rule, needed = RULES.get(str(check.get("rule")), (None, ()))
    missing = [key for key in needed if check.get(key) is None] or ["rule"]
    if rule is None or missing != ["rule"]:
        raise cf.ChainForgeError(
            f"reward correct cannot use the check {dict(check)!r:.100}: mind {missing[0]!r}",
            f"a check names its rule and has the rule's settings; rules: {', '.join(RULES)}",
        )
    return rule(summary, check)


def expression(summary: str, check: Mapping[str, Any]) -> bool:
    """All `numbers`, each used once, make `target` by `operators` (of +-*/); `= target` may follow."""
    text, equals, value = plain(summary.translate(SIGNS)).partition("=")
    if len(text) > 200 or not re.fullmatch(r"[0-9+\-*/() ]+", text):
        return False
    if equals and value.strip() != str(check["target"]):
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    used = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    if sorted(used, key=str) != sorted(check["numbers"], key=str):
        return False
    return bool(worth(tree, check.get("operators") or "+-*/") == check["target"])


def worth(node: ast.expr, operators: str) -> Fraction | None:
    """The value of an expression tree; None where it divides by zero or holds anything not allowed."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return Fraction(node.value)
    if not isinstance(node, ast.BinOp) or OPERATORS.get(type(node.op), "no") not in operators:
        return None
    left, right = worth(node.left, operators), worth(node.right, operators)
    if left is None or right is None:
        return None
    match node.op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
    return left / right if right else None


def items(summary: str, check: Mapping[str, Any]) -> bool:
    """`n` different words of the list `from`, and no others; in capitals if `upper`."""
    words = [word for word in re.split(r"[\s,;]+", plain(summary)) if word and word.lower() != "and"]
    lower = {word.lower() for word in words}
    known = {str(word).lower() for word in check["from"]}
    capitals = not check.get("upper") or all(map(str.isupper, words))
    return len(words) == len(lower) == check["n"] and lower <= known and capitals


def greeting(summary: str, check: Mapping[str, Any]) -> bool:
    """Greets `name`, in at most 12 words; in capitals if `upper`, in `words` words, closing with `end`."""
    text = summary.strip()
    words = re.findall(r"[^\W\d_]+", text)
    if not set(map(str.lower, words)) & GREETINGS or len(words) > 12:
        return False
    name = check["name"].upper() if check.get("upper") else check["name"]
    return bool(
        name in words
        and (not check.get("upper") or text.isupper())
        and len(words) == (check.get("words") or len(words))
        and text.endswith(check.get("end") or "")
    )


OPERATORS: dict[type, str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
RULES: dict[str, tuple[Callable[[str, Mapping[str, Any]], bool], tuple[str, ...]]] = {
    "expression": (expression, ("numbers", "target")),
    "items": (items, ("from", "n")),
    "greeting": (greeting, ("name",)),
}


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    register("correct", correct, reading=cf.read_answer)
