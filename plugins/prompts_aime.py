"""Prompt source `aime`: the American Invitational Mathematics Examination, answers from 0 to 999.

From a folder with `train.jsonl` and `test.jsonl`, a row with `problem` and `answer`. Or from the hub, where
all years are one set: those of `eval_years` are held out, the others are for training.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chainforge as cf

FILES = {"train": "train", "eval": "test"}
DATASET = "di-zhang-fdu/AIME_1983_2024"


def aime(
    *,
    split: str,
    n: int,
    seed: int,
    folder: Path | None = None,
    eval_years: list[int] | None = None,
    instruction: str | None = None,
    revision: str | None = None,
) -> Iterator[cf.Prompt]:
    """The problems of the split in their order; a seeded choice of `n` if there are more.

    Without `folder` they come from the hub, at `revision`; `eval_years` are [2024] unless others are named.
    `instruction` is written below each problem.
    """
    name = FILES[cf.check_split(split)]
    if folder is not None and eval_years is not None:
        raise cf.ChainForgeError("eval_years is for the hub", "with `folder`, test.jsonl is what is held out")
    if folder is not None:
        rows = cf.file_rows(folder / f"{name}.jsonl")
    else:
        held_out = eval_years or [2024]
        every = cf.hub_rows(DATASET, "train", revision=revision)
        rows = (row for row in every if (whole(row, "Year", "year") in held_out) == (split == "eval"))
    return prompts(rows, split, n, seed, instruction)


def prompts(
    rows: Iterator[cf.Row], split: str, n: int, seed: int, instruction: str | None
) -> Iterator[cf.Prompt]:
    for row in cf.choose(list(rows), n, f"{seed}:{split}"):
        value = whole(row, "answer", "Answer")
        if not 0 <= value <= 999:
            raise row.error(f"the answer is {value}", "an answer of the AIME is from 0 to 999: correct it")
        yield cf.Prompt(
            id=f"aime-{FILES[split]}-{row.number:04d}",
            source="aime",
            messages=row.messages("problem", "Problem", "Question", "question", instruction=instruction),
            answer=str(value),
        )


def whole(row: cf.Row, *names: str) -> int:
    """A whole number: `073`, which the examination writes, is 73."""
    text = row.text(*names)
    try:
        return int(text)
    except ValueError:
        raise row.error(f"{names[0]} is {text!r:.40}, no whole number", "correct it in the data") from None


@cf.hookimpl
def register_prompt_sources(register: Callable[[str, Any], None]) -> None:
    register("aime", aime)
