"""Problems that are made on the spot: of the right split, and none of them twice."""

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import TypeVar

from chainforge.errors import ChainForgeError

EVAL_SHARE = 5  # one problem in five is kept for evaluation
MOST_TRIES = 5_000  # draws without a new problem before a source counts as used up

T = TypeVar("T")


def check_split(split: str) -> str:
    """The split. Raises ChainForgeError unless it is "train" or "eval"."""
    if split not in ("train", "eval"):
        raise ChainForgeError(f"there is no split called {split!r}", "ask for train or eval")
    return split


def split_of(key: str) -> str:
    """The split that a problem is in for good, whatever the seed: its key decides it.

    Give problems that are the same turned around, 12+35 and 35+12, the same key.
    """
    digest = hashlib.sha256(key.encode()).digest()
    return "train" if int.from_bytes(digest, "big") % EVAL_SHARE else "eval"


def draw_apart(
    draw: Callable[[random.Random], T | None], key: Callable[[T], str], *, name: str, split: str, seed: int
) -> Iterator[T]:
    """Problems of one split, each with a key of its own, until there is no new one to be found.

    `draw` makes a problem, or None where that failed. What is drawn depends on name, seed and split alone.
    Raises ChainForgeError for an unknown split, and where the problems are used up.
    """
    check_split(split)
    seen: set[str] = set()
    rng = random.Random(f"{seed}:{split}:{name}")
    while True:
        for _ in range(MOST_TRIES):
            problem = draw(rng)
            if problem is None or (found := key(problem)) in seen or split_of(found) != split:
                continue
            seen.add(found)
            yield problem
            break
        else:
            raise ChainForgeError(
                f"{name} is used up: with these settings it has about {len(seen)} different {split} problems",
                f"ask for fewer {split} prompts, or allow more: other numbers, operators or families",
            )
