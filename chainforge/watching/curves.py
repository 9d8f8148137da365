"""Which columns of a step's table are worth a curve, and how a curve fits into a line of text."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chainforge.watching.read import Table

# column (a pattern) -> title, in the order in which they are shown
SHOWN = (
    (r"reward", "reward"),
    (r"rewards/(.+)/mean", r"reward \1"),
    (r"watch/grader", "held out, grader"),
    (r"watch/reward", "held out, reward"),
    (r"completions/mean_length", "length (tokens)"),
    (r"completions/clipped_ratio", "share cut off"),
    (r"frac_reward_zero_std", "groups without a signal"),
    (r"entropy", "entropy (nats)"),
    (r"kl", "KL (nats)"),
    (r"loss", "loss"),
    (r"eval_loss", "held-out loss"),
    (r"grad_norm", "gradient norm"),
    (r"learning_rate", "learning rate"),
)
BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.:-=+*#"


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric over the steps; no value is NaN."""

    title: str
    steps: list[float]
    values: list[float]

    @property
    def last(self) -> float:
        return self.values[-1]


def curves(table: Table) -> list[Curve]:
    """Those that have a value."""
    return list(_curves(table))


def _curves(table: Table) -> Iterator[Curve]:
    steps = table.get("step", [])
    for pattern, title in SHOWN:
        for name, column in table.items():
            if not (found := re.fullmatch(pattern, name)):
                continue
            pairs = [pair for pair in zip(steps, column, strict=True) if not any(map(math.isnan, pair))]
            if pairs:
                yield Curve(found.expand(title), *map(list, zip(*pairs, strict=True)))


def thin(values: Sequence[float], most: int) -> list[float]:
    """At most so many: means of neighbours."""
    if len(values) <= most:
        return list(values)
    edges = [place * len(values) // most for place in range(most + 1)]
    return [math.fsum(values[start:end]) / (end - start) for start, end in pairwise(edges)]


def sparkline(values: Sequence[float], width: int, signs: str = BLOCKS) -> str:
    """A sign per value, from the least to the greatest; all in the middle where they are equal."""
    found = thin(values, width)
    low, high = min(found), max(found)
    if high <= low:
        return signs[len(signs) // 2] * len(found)
    return "".join(signs[min(len(signs) - 1, int((v - low) / (high - low) * len(signs)))] for v in found)
