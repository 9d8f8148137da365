"""Prompt source `hub`: any data set of the Hugging Face hub, by the names of its columns.

It needs the optional package: pip install 'chainforge-r1[hub]'. A row holds a question, or a `messages` list
in its place, and usually the answer. Name a `revision`, a commit of the data set, so that the same settings
give the same prompts next year.
"""

import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import chainforge as cf


def hub(
    *,
    split: str,
    n: int,
    seed: int,
    dataset: str,
    config: str | None = None,
    revision: str | None = None,
    train: str = "train",
    eval: str = "test",
    question: str = "question",
    answer: str | None = "answer",
    answer_pattern: str | None = None,
    solution: str | None = None,
    family: str | None = None,
    columns: list[str] | None = None,
    instruction: str | None = None,
) -> Iterator[cf.Prompt]:
    """The rows of the split in their order; a seeded choice of `n` if it has more.

    `train` and `eval` name splits of the data set, or parts of one: `train[:90%]` and `train[90%:]`.
    `question`, `answer` and `solution` name columns; `answer: null` is for data without answers.
    `answer_pattern` finds the answer in its column: a regular expression with one group. `family` names the
    column by which the report groups. What `columns` names, and `solution`, reaches the rewards by name.
    `instruction` is written below each question.
    """
    if find_spec("datasets") is None:
        raise cf.ChainForgeError(
            "prompt source hub needs the package datasets", "pip install 'chainforge-r1[hub]'"
        )
    pattern = cf.read_pattern(answer_pattern)
    part = train if cf.check_split(split) == "train" else eval
    rows = cf.hub_rows(dataset, part, config=config, revision=revision, n=n, seed=f"{seed}:{split}")
    name = re.sub(r"\W+", "_", dataset.rpartition("/")[2]).lower()
    named = {"solution": solution} if solution else {}
    named |= {column: column for column in columns or ()}

    def prompt(row: cf.Row) -> cf.Prompt:
        return cf.Prompt(
            id=f"{name}-{split}-{row.number:06d}",
            source=row.text(family) if family else name,
            messages=row.messages(question, instruction=instruction),
            answer=None if answer is None else row.answer(answer, pattern),
            columns={key: row.value(column) for key, column in named.items()},
        )

    return map(prompt, rows)


@cf.hookimpl
def register_prompt_sources(register: Callable[[str, Any], None]) -> None:
    register("hub", hub)
