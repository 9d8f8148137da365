"""The last completions of a step, from STEP.completions.jsonl; what has another shape is left out."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chainforge.watching.read import number_of


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion; `reward` is None where none applied."""

    text: str
    reward: float | None
    rewards: Mapping[str, float | None]
    tokens: int
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt with its completions. `number` is the RL step, or the batch."""

    number: int
    prompt_id: str
    prompt: str
    answer: str | None
    answers: tuple[Answer, ...]
    of: int
    """How many completions it has in all."""


def read_asked(rows: Iterable[Mapping[str, Any]]) -> list[Asked]:
    """The newest first."""
    found = [asked for row in rows if (asked := _asked(row))]
    return found[::-1]


def _asked(row: Mapping[str, Any]) -> Asked | None:
    answers = tuple(_answers(row.get("completions")))
    if not answers or not isinstance(row.get("prompt"), str):
        return None
    answer, of = row.get("answer"), number_of(row.get("of"))
    return Asked(
        int(number_of(row.get("number")) or 0),
        str(row.get("prompt_id", "")),
        row["prompt"],
        answer if isinstance(answer, str) else None,
        answers,
        max(len(answers), int(of or 0)),
    )


def _answers(rows: Any) -> Iterator[Answer]:
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            continue
        rewards = row.get("rewards")
        parts = rewards if isinstance(rewards, dict) else {}
        yield Answer(
            row["text"],
            number_of(row.get("reward")),
            {name: number_of(value) for name, value in parts.items()},
            int(number_of(row.get("tokens")) or 0),
            row.get("finish") == "length",
        )
