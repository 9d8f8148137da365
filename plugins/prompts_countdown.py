"""Prompt source `countdown`: make a number out of others, each of them used once.

There is no one right answer: reward `correct` checks the expression, by its rule `expression`. Two problems
with the same numbers and the same target, in whatever order, are one problem and on one side of the split.

>>> [prompt.columns["check"]["numbers"] for prompt in countdown(split="eval", n=2, seed=17)]
[[15, 19, 16], [4, 1, 2]]
"""

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import chainforge as cf

LAST = "Answer with the expression."


class Problem(NamedTuple):
    """Numbers in the order in which they are named, and what to make of them."""

    numbers: tuple[int, ...]
    target: int

    @property
    def key(self) -> str:
        return f"countdown {sorted(self.numbers)} {self.target}"


def countdown(
    *,
    split: str,
    n: int,
    seed: int,
    numbers: int = 3,
    largest: int = 20,
    largest_target: int = 100,
    operators: str = "+-*/",
) -> Iterator[cf.Prompt]:
    """`n` problems of `numbers` numbers up to `largest`, with a target from 1 to `largest_target`.

    Every one can be solved with these `operators`, and without fractions on the way.
    """
    if not 2 <= numbers <= 8 or largest < 1 or largest_target < 1:
        raise cf.ChainForgeError(
            f"numbers is {numbers}, largest is {largest}, largest_target is {largest_target}",
            "take 2 to 8 numbers, and bounds of at least 1",
        )
    if not operators or len(set(operators)) < len(operators) or not set(operators) <= set("+-*/"):
        raise cf.ChainForgeError(f"operators is {operators!r}", "name some of + - * /, each once: '+-*/'")

    def draw(rng: random.Random) -> Problem | None:
        chosen = tuple(rng.randint(1, largest) for _ in range(numbers))
        target = made_of(rng, list(chosen), operators)
        return Problem(chosen, target) if target is not None and 1 <= target <= largest_target else None

    problems = cf.draw_apart(draw, lambda problem: problem.key, name="countdown", split=split, seed=seed)
    numbered = zip(range(n), problems, strict=False)
    return (prompt(problem, operators, f"countdown-{split}-{i:05d}") for i, problem in numbered)


def made_of(rng: random.Random, values: list[int], operators: str) -> int | None:
    """What some expression of all these values is worth; None where it left the whole numbers from 0 up."""
    while len(values) > 1:
        rng.shuffle(values)
        a, b = values.pop(), values.pop()
        match rng.choice(operators):
            case "+":
                values.append(a + b)
            case "-" if a >= b:
                values.append(a - b)
            case "*":
                values.append(a * b)
            case "/" if b and a % b == 0:
                values.append(a // b)
            case _:
                return None
    return values[0]


def prompt(problem: Problem, operators: str, name: str) -> cf.Prompt:
    numbers, target = problem
    listed = f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
    allowed = f"with {' '.join(operators)} and parentheses"
    text = f"Make {target} out of {listed}, using each number once, {allowed}. {LAST}"
    check = {"rule": "expression", "numbers": list(numbers), "target": target, "operators": operators}
    return cf.Prompt(
        id=name,
        source="countdown",
        messages=({"role": "user", "content": text},),
        columns={"check": check},
    )


@cf.hookimpl
def register_prompt_sources(register: Callable[[str, Any], None]) -> None:
    register("countdown", countdown)
