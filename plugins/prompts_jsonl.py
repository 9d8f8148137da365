"""Prompt source `jsonl`: a data set of your own, one JSON object per line.

A row holds a question, or a `messages` list in its place, and usually the answer. For GSM8K set
`answer_pattern: '####\\s*(.+)'` and `solution: answer`: teacher `recorded` then has its reasoning.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chainforge as cf


def jsonl(
    *,
    split: str,
    n: int,
    seed: int,
    train: Path,
    eval: Path,
    question: str = "question",
    answer: str | None = "answer",
    answer_pattern: str | None = None,
    solution: str | None = None,
    instruction: str | None = None,
) -> Iterator[cf.Prompt]:
    """Yield the rows of the split's file in their order; a seeded choice of `n` if it has more.

    `question`, `answer` and `solution` name fields; `answer: null` is for data without answers.
    `answer_pattern` finds the answer in its field: a regular expression with one group. `solution`
    becomes the column of that name. `instruction` is written below each question.
    """
    pattern = cf.read_pattern(answer_pattern)
    path = train if cf.check_split(split) == "train" else eval
    seen: dict[str, int] = {}
    for row in cf.file_rows(path, n, f"{seed}:{split}"):
        identity = row.text("id") if "id" in row.fields else f"{path.stem}-{row.number}"
        if identity in seen:
            raise row.error(
                f"id {identity!r} is that of line {seen[identity]} too", "give each row its own id"
            )
        seen[identity] = row.number
        yield cf.Prompt(
            id=identity,
            source=path.stem,
            messages=row.messages(question, instruction=instruction),
            answer=None if answer is None else row.answer(answer, pattern),
            columns={} if solution is None else {"solution": row.text(solution)},
        )


@cf.hookimpl
def register_prompt_sources(register: Callable[[str, Any], None]) -> None:
    register("jsonl", jsonl)
