"""Sample completions: the same few held-out problems, answered by every checkpoint."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Literal

from chainforge.records import Message
from chainforge.report.evaluations import Cell, correctness, eval_rows, rows_file
from chainforge.report.subject import Subject
from chainforge.response import Parsed, TagFormat

Verdict = Literal["right", "partly right", "wrong", "not graded"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one checkpoint wrote; `parsed` is None where the text does not follow the format."""

    checkpoint: str
    text: str
    parsed: Parsed | None
    finish: str
    tokens: int
    rewards: Mapping[str, float | None]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Shown:
    """One held-out problem with an answer per checkpoint, in recipe order."""

    bench: str
    prompt_id: str
    family: str
    question: str
    answer: str | None
    answers: tuple[Answer, ...]
    earlier: tuple[Message, ...]  # turns of the conversation before the question
    role: str  # who asks it


def read_samples(root: Path, cells: Sequence[Cell], subject: Subject) -> tuple[Shown, ...]:
    """`samples_per_bench` problems per bench, each with its greedy answer, or else its first sample."""
    shown: list[Shown] = []
    for bench in subject.benches:
        here = [cell for cell in cells if cell.bench == bench]
        ids = pick_problems(here, subject.samples_per_bench, subject.seed)
        rows = {cell.checkpoint: read_chosen(root, cell, ids, subject) for cell in here}
        for prompt_id in ids:
            first, _ = rows[here[0].checkpoint][prompt_id]
            answers = tuple(rows[cell.checkpoint][prompt_id][1] for cell in here)
            turns = tuple(first.get("messages") or ({"role": "user", "content": first["question"]},))
            question, reference, last = first["question"], first["answer"], turns[-1]["role"]
            shown.append(
                Shown(bench, prompt_id, first["source"], question, reference, answers, turns[:-1], last)
            )
    return tuple(shown)


def pick_problems(cells: Sequence[Cell], count: int, seed: int) -> list[str]:
    """Prompt ids that all cells share: one family after the other, drawn by hash and never by outcome."""
    families: dict[str, list[str]] = {}
    for problem in cells[0].problems.values() if cells else ():
        if all(problem.prompt_id in cell.problems for cell in cells):
            families.setdefault(problem.family, []).append(problem.prompt_id)
    drawn = [sorted(ids, key=lambda x: draw(seed, x)) for ids in families.values()]
    drawn.sort(key=lambda ids: draw(seed, ids[0]))
    rounds = chain.from_iterable(zip_longest(*drawn))
    return [prompt_id for prompt_id in rounds if prompt_id is not None][:count]


def draw(seed: int, prompt_id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{prompt_id}".encode("utf-8", "surrogatepass")).digest()


def read_chosen(
    root: Path, cell: Cell, ids: Sequence[str], subject: Subject
) -> dict[str, tuple[Mapping[str, Any], Answer]]:
    """The rows of a cell that are to be shown, by prompt id."""
    chosen = {}
    wanted = set(ids)
    for where, row in eval_rows(rows_file(root, cell.checkpoint, cell.bench)) if wanted else ():
        if row["prompt_id"] in wanted:
            sample = row["greedy"] or row["samples"][0]
            correct = correctness(sample, subject.reward, where)
            chosen[str(row["prompt_id"])] = row, as_answer(cell.checkpoint, sample, correct, subject)
    return chosen


def as_answer(checkpoint: str, sample: Mapping[str, Any], correct: float | None, subject: Subject) -> Answer:
    text = sample["text"]
    parsed = parse(subject.response_format, text)
    if parsed and not parsed.filled:
        parsed = None  # as in `format_rate`
    rewards = dict(sample["rewards"])
    return Answer(checkpoint, text, parsed, sample["finish"], sample["tokens"], rewards, verdict(correct))


def parse(response_format: TagFormat, text: str) -> Parsed | None:
    """Parse a text whether or not it repeats the opening tag that the chat template had written."""
    opened = text.lstrip().startswith(response_format.prefill)
    return response_format.parse(text if opened else response_format.prefill + text)


def verdict(correct: float | None) -> Verdict:
    if correct is None:
        return "not graded"
    return "right" if correct >= 1 else "partly right" if correct > 0 else "wrong"
