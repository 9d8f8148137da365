"""One checkpoint on one bench, in two runs: the paired difference, and the problems that flipped.

A is the run before, B the run after: a positive difference means that B is better. A problem is the same
where id and question agree. Its verdict is that of the greedy answer where both runs have one; otherwise it
is right where more than half of its samples are.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from chainforge.algorithms.statistics import Paired, paired_difference
from chainforge.errors import ChainForgeError
from chainforge.report.evaluations import correctness
from chainforge.report.shape import Asked, check_shape

Row = Mapping[str, Any]  # a line of data/eval/CHECKPOINT/BENCH.jsonl


@dataclass(frozen=True, slots=True)
class Flip:
    """One problem that only one of the two runs answers rightly, with an answer of each."""

    prompt_id: str
    question: str
    reference: str | None
    a: str
    b: str
    earlier: tuple[str, ...] = ()  # turns of the conversation before the question, each with its role


@dataclass(frozen=True, slots=True)
class Difference:
    """A cell of both runs over their `n` common problems; of one run alone, or without any, `paired` is None.

    `pass_a` and `pass_b` are pass@1 over the common problems, or over all where there are none in common.
    """

    checkpoint: str
    bench: str
    n: int
    n_a: int | None
    n_b: int | None
    pass_a: float | None
    pass_b: float | None
    paired: Paired | None = None
    same_answers: bool = False
    gained: tuple[Flip, ...] = ()  # wrong in A, right in B
    lost: tuple[Flip, ...] = ()  # right in A, wrong in B

    @property
    def clear(self) -> bool:
        """Whether the 95% interval excludes 0."""
        return self.paired is not None and (self.paired.lo > 0 or self.paired.hi < 0)


class Answers:
    """The rows of one run's cell by prompt id; `reward` is the one that decides in that run."""

    def __init__(self, rows: Iterable[Row], reward: str, where: str) -> None:
        self.rows: dict[str, Row] = {}
        self._reward = reward
        self._where = where
        for row in rows:
            check_shape(Asked, row, where, "run the evaluate step again")
            self.rows[str(row["prompt_id"])] = row
        if not self.rows:
            raise ChainForgeError(f"{where} has no problems", "run the evaluate step again")

    def rate(self, prompt_id: str) -> float:
        """The share of that problem's samples that are right."""
        samples = self.rows[prompt_id]["samples"]
        return math.fsum(self.right(sample) for sample in samples) / len(samples)

    def mean_rate(self, prompt_ids: Iterable[str]) -> float:
        """pass@1 over these problems."""
        rates = [self.rate(prompt_id) for prompt_id in prompt_ids]
        return math.fsum(rates) / len(rates)

    def right(self, answer: Mapping[str, Any]) -> bool:
        """As `evaluate` counts: only the full reward is right."""
        return correctness(answer, self._reward, self._where) == 1.0

    def verdict(self, prompt_id: str, *, by_greedy: bool) -> tuple[bool, str]:
        """Whether that problem counts as solved, and an answer that shows it."""
        row = self.rows[prompt_id]
        if by_greedy:
            return self.right(row["greedy"]), row["greedy"]["text"]
        solved = self.rate(prompt_id) > 0.5
        return solved, next(s["text"] for s in row["samples"] if self.right(s) == solved)


def compare_cell(checkpoint: str, bench: str, a: Answers | None, b: Answers | None) -> Difference:
    """The difference of one cell; a run that lacks it is None."""
    common = [i for i, row in a.rows.items() if i in b.rows and _same(row, b.rows[i])] if a and b else []
    alone = Difference(
        checkpoint,
        bench,
        n=len(common),
        n_a=len(a.rows) if a else None,
        n_b=len(b.rows) if b else None,
        pass_a=a.mean_rate(common or a.rows) if a else None,
        pass_b=b.mean_rate(common or b.rows) if b else None,
    )
    if not (a and b and common):
        return alone
    flips = [(b_right, flip) for i in common for b_right, flip in _flip(i, a, b)]
    return replace(
        alone,
        paired=paired_difference([b.rate(i) for i in common], [a.rate(i) for i in common]),
        same_answers=all(a.rows[i] == b.rows[i] for i in common),
        gained=tuple(flip for b_right, flip in flips if b_right),
        lost=tuple(flip for b_right, flip in flips if not b_right),
    )


def _same(a: Row, b: Row) -> bool:
    return bool(a["question"] == b["question"] and a.get("messages") == b.get("messages"))


def _flip(prompt_id: str, a: Answers, b: Answers) -> Iterable[tuple[bool, Flip]]:
    """(B is right, the flip) if the verdict differs."""
    row = b.rows[prompt_id]
    by_greedy = bool(a.rows[prompt_id]["greedy"] and row["greedy"])
    (a_right, a_text), (b_right, b_text) = (run.verdict(prompt_id, by_greedy=by_greedy) for run in (a, b))
    if a_right != b_right:
        earlier = tuple(f"{turn['role']}: {turn['content']}" for turn in row.get("messages", ())[:-1])
        yield b_right, Flip(prompt_id, row["question"], row["answer"], a_text, b_text, earlier)
