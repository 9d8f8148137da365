r"""Prompt source and reward `reasoning_gym`: families of problems that are made on the spot, and scored.

Both need the optional package: pip install 'chainforge-r1[reasoning-gym]'. A prompt says where its problem is
from, and the reward makes it again.

Only full marks of a scorer count: many give part of them to a text that holds the right answer among others;
some give all, so such a text is wrong here.
The answer is what the last `\boxed{…}` of the summary holds, else what follows the last "answer is" or
"Answer:", else the whole summary.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import chainforge as cf

RUNS_ANSWERS = "its scorer runs an answer as code"
OTHER_EACH_TIME = "it makes other problems in another process"
REFUSED = {
    **dict.fromkeys(("binary_matrix", "n_queens", "spiral_matrix", "string_insertion"), RUNS_ANSWERS),
    **dict.fromkeys(("intermediate_integration", "simple_integration"), RUNS_ANSWERS),
    **dict.fromkeys(("countdown", "polynomial_multiplication", "puzzle24"), RUNS_ANSWERS),
    **dict.fromkeys(("codeio", "isomorphic_strings", "knight_swap"), OTHER_EACH_TIME),
    **dict.fromkeys(("ransom_note", "word_ladder"), OTHER_EACH_TIME),
    "game_of_life_halting": "its scorer takes any text for right",
    "composite": "it mixes families: name them one by one",
}
MOST_TRIES = 1_000  # items without a new problem before a family counts as used up
FULL_MARKS = 0.99
LIMIT_S = 5.0
LEAD = re.compile(r"\banswer(?:\s+is\b|\s*:)\s*:?\s*", re.IGNORECASE)


class Item(NamedTuple):
    """A problem, and its number in the family."""

    number: int
    entry: Mapping[str, Any]


def problems(
    *, split: str, n: int, seed: int, families: list[str] | dict[str, dict[str, Any]]
) -> Iterator[cf.Prompt]:
    """`n` problems, the families taking turns: `families` lists them, or has settings for each name."""
    cf.check_split(split)
    ready()
    chosen = families if isinstance(families, dict) else {family: {} for family in families}
    if not chosen or len(chosen) < len(families):
        raise cf.ChainForgeError(f"families is {families!r:.100}", "name some, each once: [gcd, chain_sum]")
    sets = {family: family_of(family, seed, settings) for family, settings in chosen.items()}
    sources = {family: items(family, made, split) for family, made in sets.items()}
    turns = zip(range(n), itertools.cycle(sources), strict=False)
    return (prompt(family, chosen[family], seed, split, next(sources[family])) for _, family in turns)


def family_of(name: str, seed: int, settings: Mapping[str, Any]) -> Any:
    """The family with its settings. Raises ChainForgeError for one that is not there or is not to be used."""
    from reasoning_gym.factory import DATASETS, create_dataset

    known = ", ".join(sorted(set(DATASETS) - set(REFUSED)))
    if name in REFUSED:
        raise cf.ChainForgeError(f"family {name} is not used: {REFUSED[name]}", f"take another: {known}")
    if name not in DATASETS:
        raise cf.ChainForgeError(f"reasoning_gym has no family {name!r}", f"known: {known}")
    try:
        return create_dataset(name, **{"seed": seed, "size": 2**31, **settings})
    except (AssertionError, TypeError, ValueError) as error:
        raise cf.ChainForgeError(
            f"family {name} does not take these settings: {error}",
            "its class in reasoning_gym has its settings",
        ) from error


def items(family: str, made: Any, split: str) -> Iterator[Item]:
    """Different problems of one split; where the package fails to make one, the next is taken."""
    seen: set[str] = set()
    fruitless = 0
    for index in itertools.count():
        if fruitless == MOST_TRIES:
            raise cf.ChainForgeError(
                f"family {family} is used up: it has about {len(seen)} different {split} problems",
                f"ask for fewer {split} prompts, or set it wider",
            )
        fruitless += 1
        try:
            entry = made[index]
        except (AssertionError, IndexError, ValueError):
            continue
        question = str(entry["question"])
        if question.strip() and question not in seen and cf.split_of(question) == split:
            seen.add(question)
            fruitless = 0
            yield Item(index, entry)


def prompt(family: str, settings: Mapping[str, Any], seed: int, split: str, item: Item) -> cf.Prompt:
    answer = item.entry["answer"]
    return cf.Prompt(
        id=f"{family}-{split}-{item.number:06d}",
        source=family,
        messages=({"role": "user", "content": str(item.entry["question"])},),
        answer=None if answer is None else str(answer),
        columns={
            "reasoning_gym": {
                "family": family, "settings": dict(settings), "seed": seed, "index": item.number
            }
        },
    )  # fmt: skip


def solved(
    *,
    completions: list[str],
    prompts: list[str],
    reasoning_gym: list[Mapping[str, Any] | None],
    response_format: cf.TagFormat,
    **_: object,
) -> list[float | None]:
    """One number per completion; None where a prompt is not of that source."""
    return [
        None if origin is None else grade(response_format.parse(text), asked, origin)
        for text, asked, origin in zip(completions, prompts, reasoning_gym, strict=True)
    ]


def grade(parsed: cf.Parsed | None, asked: str, origin: Mapping[str, Any]) -> float:
    made, entry = problem(json.dumps(origin, sort_keys=True))
    if entry["question"] != asked:
        raise cf.ChainForgeError(
            f"problem {origin['index']} of {origin['family']} is not what the prompt asks",
            "another version of the package made it: run the step `prompts` again, or install that version",
        )
    return 0.0 if parsed is None else float(marks(made, extract(parsed.summary), entry) >= FULL_MARKS)


@lru_cache(maxsize=4096)
def problem(origin: str) -> tuple[Any, Mapping[str, Any]]:
    """The family and the problem, made again. A group's completions ask for the same one."""
    about = json.loads(origin)
    made = family_of(about["family"], about["seed"], about["settings"])
    return made, made[about["index"]]


def marks(made: Any, answer: str, entry: Mapping[str, Any]) -> float:
    """What the scorer gives; 0.0 where it cannot read the answer, and for the right one among others."""
    right, said = plain(str(entry["answer"])), plain(answer)
    if entry["answer"] is not None and right in said and right != said:
        return 0.0
    try:
        return float(made.score_answer(answer, entry))
    except Exception:  # scorers raise of many kinds for texts that they do not expect
        return 0.0


def plain(text: str) -> str:
    """Without white space, case, and what may stand around an answer."""
    return "".join(text.casefold().split()).strip(".,;:!\"'`*$")


def extract(summary: str) -> str:
    inside = cf.boxed(summary)
    if inside != summary:
        return inside.strip()
    *_, last = LEAD.split(summary)
    return last.strip().removesuffix(".") if last != summary else summary.strip()


def ready() -> None:
    if find_spec("reasoning_gym") is None:
        raise cf.ChainForgeError(
            "reasoning_gym needs the package reasoning-gym", "pip install 'chainforge-r1[reasoning-gym]'"
        )


def prepare() -> None:
    import reasoning_gym.factory  # noqa: F401 - takes a second


@cf.hookimpl
def register_prompt_sources(register: Callable[[str, Any], None]) -> None:
    register("reasoning_gym", problems)


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    register(
        "reasoning_gym",
        solved,
        isolation="process",
        each_s=LIMIT_S,
        on_error="none",
        ready=ready,
        prepare=prepare,
    )
