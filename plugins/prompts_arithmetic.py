"""Prompt source `arithmetic`: sums, differences, products and quotients of any size, with one right answer.

Each comes with its solution, one operation per step, so that teacher `recorded` can teach it. Two problems
with the same numbers and operators, in whatever order, are one problem and on one side of the split: whoever
has seen 12 + 35 is not asked 35 + 12.

>>> [(p.messages[0]["content"], p.answer) for p in arithmetic(split="eval", n=2, seed=17)]
[('What is 9 * 95?', '855'), ('What is 59 - 9?', '50')]
>>> solve(Problem((7, 20, 3), ("+", "*"), 67))
'20 * 3 = 60. 7 + 60 = 67.'
"""

import itertools
import operator
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import chainforge as cf

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}


class Problem(NamedTuple):
    """`numbers` with an operator between each two, and what that is worth."""

    numbers: tuple[int, ...]
    operators: tuple[str, ...]
    value: int

    @property
    def text(self) -> str:
        rest = (
            f" {operator} {number}" for operator, number in zip(self.operators, self.numbers[1:], strict=True)
        )
        return f"{self.numbers[0]}{''.join(rest)}"

    @property
    def key(self) -> str:
        return f"arithmetic {sorted(self.numbers)} {sorted(self.operators)}"


def arithmetic(
    *,
    split: str,
    n: int,
    seed: int,
    numbers: int = 2,
    digits: int = 2,
    operators: str = "+-*",
    kinds: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[cf.Prompt]:
    """`n` problems of `numbers` numbers with up to `digits` digits each; a number that is divided has more.

    `operators` are some of + - * /; a division has no remainder. Products come before sums, as ever. `kinds`
    names several kinds that take turns, with those of the three settings that are not as above.
    """
    usual = {"numbers": numbers, "digits": digits, "operators": operators}
    sources = {
        name: problems(name, split, seed, **check(name, usual, kind))
        for name, kind in (kinds or {"arithmetic": {}}).items()
    }
    turns = zip(range(n), itertools.cycle(sources), strict=False)
    return (prompt(next(sources[name]), name, f"{name}-{split}-{i:05d}") for i, name in turns)


def check(name: str, usual: Mapping[str, Any], kind: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one kind: its own, else the usual ones. Raises ChainForgeError."""
    if not isinstance(kind, Mapping) or not set(kind) <= set(usual):
        raise cf.ChainForgeError(f"kinds.{name} is {kind!r:.80}", f"give it some of: {', '.join(usual)}")
    settings = {**usual, **kind}
    numbers, digits, operators = settings.values()
    if not isinstance(numbers, int) or not isinstance(digits, int) or not isinstance(operators, str):
        raise cf.ChainForgeError(
            f"{name}: numbers is {numbers!r}, digits is {digits!r}, operators is {operators!r}",
            "two whole numbers and a text: numbers: 2, digits: 2, operators: '+-*'",
        )
    if not 2 <= numbers <= 10 or not 1 <= digits <= 12:
        raise cf.ChainForgeError(
            f"{name}: numbers is {numbers}, digits is {digits}", "take 2 to 10 numbers of 1 to 12 digits"
        )
    if not operators or len(set(operators)) < len(operators) or not set(operators) <= set("+-*/"):
        raise cf.ChainForgeError(
            f"{name}: operators is {operators!r}", "name some of + - * /, each once: '+-*/'"
        )
    return settings


def problems(
    name: str, split: str, seed: int, *, numbers: int, digits: int, operators: str
) -> Iterator[Problem]:
    """Problems of one kind, until there is no new one."""

    def draw(rng: random.Random) -> Problem | None:
        return expression(rng, numbers, digits, operators)

    return cf.draw_apart(draw, lambda problem: problem.key, name=name, split=split, seed=seed)


def expression(rng: random.Random, count: int, digits: int, operators: str) -> Problem | None:
    """A random one; None where a division would have a remainder."""
    first = number(rng, digits)
    numbers, chosen, terms = [first], list[str](), [first]
    for _ in range(count - 1):
        operator, value = rng.choice(operators), number(rng, digits)
        match operator:
            case "+":
                terms.append(value)
            case "-":
                terms.append(-value)
            case "*":
                terms[-1] *= value
            case "/":
                if not chosen or chosen[-1] in "+-":  # the dividend, which may get longer, is made to fit
                    numbers[-1] *= value
                    terms[-1] *= value
                if terms[-1] % value:
                    return None
                terms[-1] //= value
        numbers.append(value)
        chosen.append(operator)
    return Problem(tuple(numbers), tuple(chosen), sum(terms))


def number(rng: random.Random, digits: int) -> int:
    """Of 1 to `digits` digits, each length as likely as another; never 0."""
    length = rng.randint(1, digits)
    return rng.randint(10 ** (length - 1), 10**length - 1)


def solve(problem: Problem) -> str:
    """Products and quotients first, then the rest, each from left to right.

    Sums and differences of two numbers with several digits each take the tens and the rest of the second one
    in two steps: 47 + 38 is 47 + 30 and 8 more.
    """
    steps = list[str]()
    values, operators = list(problem.numbers), list(problem.operators)
    for now in ("*/", "+-"):
        place = 0
        while place < len(operators):
            if operators[place] not in now:
                place += 1
                continue
            sign, right = operators.pop(place), values.pop(place + 1)
            tens = right - right % 10
            parts = (
                [tens, right - tens]
                if now == "+-" and abs(values[place]) > 9 and 0 < tens < right
                else [right]
            )
            for part in parts:
                left = values[place]
                values[place] = OPERATIONS[sign](left, part)
                steps.append(f"{left} {sign} {part} = {values[place]}.")
    return " ".join(steps)


def prompt(problem: Problem, kind: str, name: str) -> cf.Prompt:
    return cf.Prompt(
        id=name,
        source=kind,
        messages=({"role": "user", "content": f"What is {problem.text}?"},),
        answer=str(problem.value),
        columns={"solution": f"{solve(problem)}\n#### {problem.value}"},
    )


@cf.hookimpl
def register_prompt_sources(register: Callable[[str, Any], None]) -> None:
    register("arithmetic", arithmetic)
