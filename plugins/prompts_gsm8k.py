"""Prompt source `gsm8k`: grade-school word problems (Cobbe et al., 2021, arXiv 2110.14168; MIT licence).

From a folder with `train.jsonl` and `test.jsonl`, as the authors publish them, or from the hub. Each prompt
has its worked solution in the column `solution`, which teacher `recorded` can read.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chainforge as cf

FILES = {"train": "train", "eval": "test"}
DATASET = "openai/gsm8k"
REVISION = "740312add88f781978c0658806c59bc2815b9866"


def gsm8k(
    *,
    split: str,
    n: int,
    seed: int,
    folder: Path | None = None,
    instruction: str | None = None,
    joined_by: str = "\n",
    revision: str = REVISION,
) -> Iterator[cf.Prompt]:
    """The rows of the split in their order; a seeded choice of `n` if it has more.

    Without `folder` they come from the hub, at `revision`. `instruction` is written below each question;
    or behind it, with `joined_by: ' '`.
    """
    name, chance = FILES[cf.check_split(split)], f"{seed}:{split}"
    if folder is not None:
        rows = cf.file_rows(folder / f"{name}.jsonl", n, chance)
    else:
        rows = cf.hub_rows(DATASET, name, config="main", revision=revision, n=n, seed=chance)
    return (prompt(row, name, instruction, joined_by) for row in rows)


def prompt(row: cf.Row, name: str, instruction: str | None, joined_by: str) -> cf.Prompt:
    solution = row.text("answer")
    _, mark, answer = solution.rpartition("####")
    if not mark or not answer.strip():
        raise row.error(
            "the answer has no '####' before its number", "write the solution, '####', the number"
        )
    return cf.Prompt(
        id=f"gsm8k-{name}-{row.number:05d}",
        source="gsm8k",
        messages=row.messages("question", instruction=instruction, joined_by=joined_by),
        answer=answer.strip(),
        columns={"solution": solution},
    )


@cf.hookimpl
def register_prompt_sources(register: Callable[[str, Any], None]) -> None:
    register("gsm8k", gsm8k)
