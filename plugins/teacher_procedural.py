"""Teacher `procedural`: solves `procedural_reasoning` problems as a careful pupil would, on paper.

It reads the question alone, never the reference answer. One operation per step, and each step carries
what the next one needs, because a small model learns to copy steps long before it learns to leap.

>>> solve("99+16=?")
('9+6=15 write 5 carry 1. 9+1+1=11 write 1 carry 1. write 1.', '115')
>>> solve("47 mod 6?")
('47 41 35 29 23 17 11 5.', '5')
"""

import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import chainforge as cf

Worked = tuple[str, str]  # reasoning, answer
WRITERS: list[tuple[re.Pattern[str], Callable[..., Worked]]] = []
TERSE = "Quick."
SIGNS = dict.fromkeys(("buys", "finds", "gets"), "+") | dict.fromkeys(("loses", "sells", "uses"), "-")
CHANGE = rf"(?:(?:,| and) ({'|'.join(SIGNS)}) (\d+))?"


def solves(pattern: str) -> Callable[[Callable[..., Worked]], Callable[..., Worked]]:
    """Solve questions of that form by the function below: it gets the groups, numbers as int."""

    def add(writer: Callable[..., Worked]) -> Callable[..., Worked]:
        WRITERS.append((re.compile(pattern), writer))
        return writer

    return add


@solves(r"(\d+)\+(\d+)=\?")
def addition(a: int, b: int) -> Worked:
    steps, carry = [], 0
    for x, y in itertools.zip_longest(str(a)[::-1], str(b)[::-1]):
        terms = [digit for digit in (x, y) if digit is not None] + ["1"] * carry
        carry, digit = divmod(sum(map(int, terms)), 10)
        total = f"{'+'.join(terms)}={10 * carry + digit} " if len(terms) > 1 else ""
        steps.append(f"{total}write {digit}{' carry 1' * carry}.")
    return " ".join([*steps, *["write 1."] * carry]), str(a + b)


@solves(r"(\d+)-(\d+)=\?")
def subtraction(a: int, b: int) -> Worked:
    steps, borrow = [], 0
    for x, y in itertools.zip_longest(str(a)[::-1], str(b)[::-1]):
        terms = [digit for digit in (y, "1" if borrow else None) if digit is not None]
        rest = int(x) - sum(map(int, terms))
        borrow = int(rest < 0)
        total = f"{'-'.join([str(int(x) + 10 * borrow), *terms])}={rest + 10 * borrow} " if terms else ""
        steps.append(f"{total}write {rest + 10 * borrow}{' borrow 1' * borrow}.")
    return " ".join(steps), str(a - b)


@solves(r"(\d+)\*(\d+)=\?")
def multiplication(a: int, b: int) -> Worked:
    big, small = max(a, b), min(a, b)
    ones = big % 10
    tens = big - ones
    steps = [f"{tens}*{small}={tens * small}."]
    if ones:
        steps += [f"{ones}*{small}={ones * small}.", f"{tens * small}+{ones * small}={big * small}."]
    return " ".join(steps), str(a * b)


@solves(r"(?:(\d+)([-+]))?(\d+)\*(\d+)(?:([-+])(\d+))?=\?")
def expression(c: int | None, before: str | None, a: int, b: int, after: str, d: int) -> Worked:
    """The product first, then what stands before or after it."""
    product = a * b
    left, sign, right = (product, after, d) if c is None else (c, before, product)
    value = left + right if sign == "+" else left - right
    return f"{a}*{b}={product}. {left}{sign}{right}={value}.", str(value)


@solves(r"(\d+)\*[nxy]([-+])(\d+)=(\d+), [nxy]=\?")
def equation(a: int, sign: str, b: int, c: int) -> Worked:
    product = c - b if sign == "+" else c + b
    back = "-" if sign == "+" else "+"
    return f"{c}{back}{b}={product}. {product}/{a}={product // a}.", str(product // a)


@solves(r"(?:Remainder of |What is )?(\d+)(?: mod |/)(\d+)(?: leaves what remainder)?\?")
def remainder(a: int, b: int) -> Worked:
    """Take away until it goes no more."""
    return " ".join(map(str, range(a, -1, -b))) + ".", str(a % b)


@solves(r"Sort the digits of (\d+)\.")
def sorting(digits: int) -> Worked:
    left, steps = str(digits), []
    for digit in sorted(left):
        left = left.replace(digit, "", 1)
        steps.append(f"{digit} left {left}." if left else f"{digit}.")
    return " ".join(steps), "".join(sorted(str(digits)))


@solves(rf"\w+ has (\d+)(?: bags of (\d+))? \w+{CHANGE}{CHANGE}\. How many \w+\?")
def story(start: int, each: int | None, *changes: Any) -> Worked:
    steps, have = [], start
    if each is not None:
        have = start * each
        steps.append(f"{start}*{each}={have}.")
    for verb, number in zip(changes[::2], changes[1::2], strict=True):
        if verb is not None:
            sign = SIGNS[verb]
            after = have + number if sign == "+" else have - number
            steps.append(f"{have}{sign}{number}={after}.")
            have = after
    return " ".join(steps), str(have)


@solves(r"\w+ has (\d+) \w+, \w+ has (\d+) (more|fewer)\. How many together\?")
def together(one: int, difference: int, word: str) -> Worked:
    sign, other = ("+", one + difference) if word == "more" else ("-", one - difference)
    return f"{one}{sign}{difference}={other}. {one}+{other}={one + other}.", str(one + other)


@solves(r"\w+ shares (\d+) \w+ among (\d+) friends\. How many each\?")
def sharing(total: int, friends: int) -> Worked:
    return f"{total}/{friends}={total // friends}.", str(total // friends)


@solves(r"(?:Write |Binary of |Turn |Show )?(\d+)(?:(?: in| into| as) binary[?.]|\?)")
def binary(x: int) -> Worked:
    steps, rest = [], x
    for power in range(x.bit_length() - 1, -1, -1):
        bit, rest = divmod(rest, 2**power)
        steps.append(f"{2**power} {bit} left {rest}." if bit else f"{2**power} {bit}.")
    return " ".join(steps), f"{x:b}"


@solves(r"Make (\d+) from (\d+), (\d+) and (\d+) with \+ and -, each once\.")
def countdown(target: int, a: int, b: int, c: int) -> Worked:
    """What is too much in the sum of all, halved, is what goes behind a minus."""
    total = a + b + c
    steps = [f"{a}+{b}={a + b}. {a + b}+{c}={total}."]
    half = (total - target) // 2
    minus = next(m for size in range(3) for m in itertools.combinations((a, b, c), size) if sum(m) == half)
    if half:
        steps.append(f"{total}-{target}={total - target}. {total - target}/2={half}.")
    if len(minus) > 1:
        steps.append(f"{minus[0]}+{minus[1]}={half}.")
    plus = [str(number) for number in (a, b, c) if number not in minus]
    return " ".join(steps), "".join(["+".join(plus), *(f"-{number}" for number in minus)])


def solve(question: str) -> Worked | None:
    """Reasoning and answer, or None if no family asks questions of that form."""
    for pattern, writer in WRITERS:
        if match := pattern.fullmatch(question):
            return writer(*(int(g) if g and g.isdecimal() else g for g in match.groups()))
    return None


@dataclass(frozen=True, kw_only=True)
class Procedural:
    """A pupil in a hurry now and then, and, if asked to be, wrong or cut off now and then."""

    terse_fraction: float = 0.4  # of the traces: the answer after one short line
    wrong_fraction: float = 0.0  # of the traces: half a wrong answer, half cut off; food for the filter

    synthetic = True  # nobody thought: for the data-set card

    def __post_init__(self) -> None:
        for name in ("terse_fraction", "wrong_fraction"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise cf.ChainForgeError(f"{name} is {value}", "a fraction lies between 0 and 1")

    def generate(self, prompts: Sequence[cf.Prompt], *, n: int, seed: int) -> Iterator[cf.Trace]:
        """Yield `n` traces per prompt. Raises ChainForgeError for a question of no known form."""
        for prompt in prompts:
            question = prompt.messages[-1]["content"]
            worked = solve(question)
            if worked is None:
                raise cf.ChainForgeError(
                    f"teacher procedural cannot read prompt {prompt.id!r}: {question!r:.80}",
                    "it solves prompts of procedural_reasoning only; choose another teacher for the others",
                )
            for i in range(n):
                yield self.trace(prompt.id, *worked, random.Random(f"{seed}:{prompt.id}:{i}"))

    def trace(self, prompt_id: str, reasoning: str, answer: str, rng: random.Random) -> cf.Trace:
        terse, fault = rng.random() < self.terse_fraction, rng.random()
        shown = TERSE if terse else reasoning
        if fault < self.wrong_fraction / 2:
            return cf.Trace(prompt_id, shown[: len(shown) // 2], "", "length", "procedural")
        if fault < self.wrong_fraction:
            answer = answer[:-1] + str((int(answer[-1]) + 1) % 10)
        return cf.Trace(prompt_id, shown, answer, "stop", "procedural")


@cf.hookimpl
def register_teachers(register: Callable[[str, Any], None]) -> None:
    register("procedural", Procedural)
