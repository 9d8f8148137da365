"""Prompt source `arithmetic`: sums, differences, products and quotients of any size, with one right answer.

Two problems with the same numbers and operators, in whatever order, are one problem and on one side of the
split: whoever has seen 12 + 35 is not asked 35 + 12.

>>> [(p.messages[0]["content"], p.answer) for p in arithmetic(split="eval", n=2, seed=17)]
[('What is 9 * 95?', '855'), ('What is 59 - 9?', '50')]
"""

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import chainforge as cf


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
    *, split: str, n: int, seed: int, numbers: int = 2, digits: int = 2, operators: str = "+-*"
) -> Iterator[cf.Prompt]:
    """`n` problems of `numbers` numbers with up to `digits` digits each; a number that is divided has more.

    `operators` are some of + - * /; a division has no remainder. Products come before sums, as ever.
    """
    if not 2 <= numbers <= 10 or not 1 <= digits <= 12:
        raise cf.ChainForgeError(
            f"numbers is {numbers}, digits is {digits}", "take 2 to 10 numbers of 1 to 12 digits"
        )
    if not operators or len(set(operators)) < len(operators) or not set(operators) <= set("+-*/"):
        raise cf.ChainForgeError(f"operators is {operators!r}", "name some of + - * /, each once: '+-*/'")

    def draw(rng: random.Random) -> Problem | None:
        return expression(rng, numbers, digits, operators)

    problems = cf.draw_apart(draw, lambda problem: problem.key, name="arithmetic", split=split, seed=seed)
    numbered = zip(range(n), problems, strict=False)
    return (prompt(problem, f"arithmetic-{split}-{i:05d}") for i, problem in numbered)


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


def prompt(problem: Problem, name: str) -> cf.Prompt:
    return cf.Prompt(
        id=name,
        source="arithmetic",
        messages=({"role": "user", "content": f"What is {problem.text}?"},),
        answer=str(problem.value),
    )


@cf.hookimpl
def register_prompt_sources(register: Callable[[str, Any], None]) -> None:
    register("arithmetic", arithmetic)
