"""Prompt source `procedural_reasoning`: ten families of small problems, made on the spot.

No two problems of one run are the same. Train and evaluation never meet, whatever the seed and
however many are asked for: the text of a question, its numbers put in order, decides its split, so that
12+35 and 35+12 are always on the same side.

>>> [prompt.messages[0]["content"] for prompt in procedural_reasoning(split="eval", n=3, seed=17)]
['70+228=?', '719-665=?', '78*3=?']
"""

import hashlib
import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import chainforge as cf

EVAL_SHARE = 5  # one problem in five is kept for evaluation
MOST_TRIES = 5_000  # draws without a new question before a family counts as used up
NAMES = ("Ann", "Bob", "Cem", "Dia", "Eva", "Finn", "Gus", "Ida", "Jon", "Kim")
THINGS = ("figs", "pens", "eggs", "cups", "nuts", "keys", "hats", "coins")


class Problem(NamedTuple):
    """A question with its one right answer, or with the check that an answer must pass."""

    question: str
    answer: str | None
    check: dict[str, Any] | None = None


def two_or_three_digits(rng: random.Random) -> int:
    return rng.randint(10, 99) if rng.random() < 0.7 else rng.randint(100, 999)


def addition(rng: random.Random) -> Problem:
    a, b = two_or_three_digits(rng), two_or_three_digits(rng)
    return Problem(f"{a}+{b}=?", str(a + b))


def subtraction(rng: random.Random) -> Problem:
    b, a = sorted((two_or_three_digits(rng), two_or_three_digits(rng)))
    return Problem(f"{a}-{b}=?", str(a - b))


def multiplication(rng: random.Random) -> Problem:
    pair = [rng.randint(10, 99), rng.randint(2, 9)]
    rng.shuffle(pair)
    return Problem(f"{pair[0]}*{pair[1]}=?", str(pair[0] * pair[1]))


def expression(rng: random.Random) -> Problem:
    """Three terms, one product among them, never below zero."""
    a, b, c = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 20)
    forms = [(f"{c}+{a}*{b}", c + a * b), (f"{a}*{b}+{c}", a * b + c)]
    forms.append((f"{a}*{b}-{c}", a * b - c) if a * b >= c else (f"{c}-{a}*{b}", c - a * b))
    text, value = rng.choice(forms)
    return Problem(f"{text}=?", str(value))


def equation(rng: random.Random) -> Problem:
    a, x, b = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 9)
    sign, c = rng.choice((("+", a * x + b), ("-", a * x - b))) if a * x > b else ("+", a * x + b)
    letter = rng.choice("nxy")
    return Problem(f"{a}*{letter}{sign}{b}={c}, {letter}=?", str(x))


def remainder(rng: random.Random) -> Problem:
    b = rng.randint(3, 9)
    a = b * rng.randint(1, 9) + rng.randrange(b)
    forms = ("{} mod {}?", "Remainder of {}/{}?", "{}/{} leaves what remainder?", "What is {} mod {}?")
    return Problem(rng.choice(forms).format(a, b), str(a % b))


def sorting(rng: random.Random) -> Problem:
    digits = [str(rng.randint(1, 9)) for _ in range(rng.randint(4, 6))]
    return Problem(f"Sort the digits of {''.join(digits)}.", "".join(sorted(digits)))


def word_problem(rng: random.Random) -> Problem:
    """One or two steps, from a handful of templates."""
    who, other = rng.sample(NAMES, 2)
    thing = rng.choice(THINGS)
    a, b, c = rng.randint(2, 20), rng.randint(2, 9), rng.randint(2, 9)
    bags, each = rng.randint(2, 9), rng.randint(2, 9)
    plus, minus = rng.choice(("buys", "finds", "gets")), rng.choice(("loses", "sells", "uses"))
    less = rng.randint(1, min(a - 1, 9))
    change, value = rng.choice(
        (
            (f" and {plus} {b}", a + b),
            (f" and {minus} {less}", a - less),
            (f", {minus} {less} and {plus} {b}", a - less + b),
        )
    )
    return rng.choice(
        (
            Problem(f"{who} has {a} {thing}{change}. How many now?", str(value)),
            Problem(f"{who} has {bags} bags of {each} {thing}. How many {thing}?", str(bags * each)),
            Problem(
                f"{who} has {bags} bags of {each} {thing}, {plus} {c}. How many now?", str(bags * each + c)
            ),
            Problem(f"{who} has {a} {thing}, {other} has {b} more. How many together?", str(2 * a + b)),
            Problem(
                f"{who} has {a} {thing}, {other} has {less} fewer. How many together?", str(2 * a - less)
            ),
            Problem(f"{who} shares {bags * each} {thing} among {bags} friends. How many each?", str(each)),
        )
    )


def binary(rng: random.Random) -> Problem:
    x = rng.randint(8, rng.choice((31, 63, 127, 255)))
    forms = ("{} in binary?", "Write {} in binary.", "Show {} in binary.", "Binary of {}?", "{} as binary?")
    form = rng.choice((*forms, "Turn {} into binary."))
    return Problem(form.format(x), f"{x:b}")


def countdown(rng: random.Random) -> Problem:
    """Make the target from three different numbers, each used once, with plus and minus."""
    numbers = rng.sample(range(1, 10), 3)
    signed = [rng.choice((1, -1)) * number for number in numbers]
    target = abs(sum(signed)) or sum(numbers)  # turning every sign around makes it positive
    a, b, c = numbers
    check = {"rule": "expression", "numbers": numbers, "target": target, "operators": "+-"}
    return Problem(f"Make {target} from {a}, {b} and {c} with + and -, each once.", None, check)


FAMILIES: dict[str, Callable[[random.Random], Problem]] = {
    "addition": addition,
    "subtraction": subtraction,
    "multiplication": multiplication,
    "expression": expression,
    "equation": equation,
    "remainder": remainder,
    "sorting": sorting,
    "word_problem": word_problem,
    "binary": binary,
    "countdown": countdown,
}


def split_of(family: str, question: str) -> str:
    """The split that a problem belongs to, for good: decided by its text, its numbers put in order."""
    number = r"\d" if family == "sorting" else r"\d+"
    ordered = iter(sorted(re.findall(number, question)))
    digest = hashlib.sha256(re.sub(number, lambda _: next(ordered), question).encode()).digest()
    return "train" if int.from_bytes(digest, "big") % EVAL_SHARE else "eval"


def problems(family: str, split: str, seed: int) -> Iterator[Problem]:
    """Different problems of one family and split, until there is no new one to be found."""
    seen: set[str] = set()
    for i in itertools.count():
        rng = random.Random(f"{seed}:{split}:{family}:{i}")
        for _ in range(MOST_TRIES):
            problem = FAMILIES[family](rng)
            if problem.question not in seen and split_of(family, problem.question) == split:
                break
        else:
            raise cf.ChainForgeError(
                f"{family} is used up: it has about {len(seen)} different {split} problems",
                f"ask for fewer {split} prompts, or leave {family} out of `families`",
            )
        seen.add(problem.question)
        yield problem


def procedural_reasoning(
    *, split: str, n: int, seed: int, families: list[str] | None = None
) -> Iterator[cf.Prompt]:
    """`n` prompts, the families taking turns; `families` chooses some of the ten."""
    chosen = list(FAMILIES) if families is None else families
    if split not in ("train", "eval"):
        raise cf.ChainForgeError(f"there is no split called {split!r}", "ask for train or eval")
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(FAMILIES):
        raise cf.ChainForgeError(
            f"families: {chosen!r} is not a choice among the families of procedural_reasoning",
            f"name each at most once; known: {', '.join(FAMILIES)}",
        )
    return in_turns({family: problems(family, split, seed) for family in chosen}, split, n)


def in_turns(sources: Mapping[str, Iterator[Problem]], split: str, n: int) -> Iterator[cf.Prompt]:
    for i, family in zip(range(n), itertools.cycle(sources), strict=False):
        question, answer, check = next(sources[family])
        yield cf.Prompt(
            id=f"{family}-{split}-{i // len(sources):05d}",
            source=family,
            messages=({"role": "user", "content": question},),
            answer=answer,
            columns={} if check is None else {"check": check},
        )


@cf.hookimpl
def register_prompt_sources(register: Callable[[str, Any], None]) -> None:
    register("procedural_reasoning", procedural_reasoning)
