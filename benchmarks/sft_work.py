"""What both sides of the SFT benchmark share: models and examples.

Imports torch and transformers only, as grpo_work.py does: each side may run in an environment of its own.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from grpo_work import PROMPT_TOKENS, SEED, WORKS, Work, uneven_lengths

LEARNING_RATE, BETA2, MAX_GRAD_NORM = 1e-5, 0.95, 1.0
MOST = 256  # tokens of a response
LONGEST = PROMPT_TOKENS + MOST
PHASES = ("forward + backward", "optimizer", "everything else")


@dataclass(frozen=True)
class SftWork:
    """A model, and how many examples it sees in one turn; a turn is an epoch of them."""

    model: Work
    batch: int  # examples per optimizer step
    steps: int  # optimizer steps per turn
    # by TRL's way of batching and precision: examples per micro-batch, or the length of a packed row
    trl_best: Mapping[str, int] = field(default_factory=dict)


def uneven(name: str) -> Work:
    return replace(WORKS[name], tokens=MOST, uneven=True)


SFT_WORKS = {
    "a": SftWork(
        uneven("a"),
        batch=64,
        steps=4,
        trl_best={"padded float32": 4, "packed float32": 288, "padding-free float32": 2},
    ),
    "b": SftWork(uneven("b"), batch=16, steps=2),
    "c": SftWork(uneven("c"), batch=64, steps=2),
}


def examples(count: int, vocab: int) -> list[tuple[list[int], list[int]]]:
    """(prompt, response) as token ids, drawn evenly; the last two ids are left to EOS and padding."""
    draw = random.Random(SEED)
    return [
        (
            [draw.randrange(vocab - 2) for _ in range(PROMPT_TOKENS)],
            [*(draw.randrange(vocab - 2) for _ in range(length - 1)), vocab - 2],
        )
        for length in uneven_lengths(count, MOST)
    ]
