r"""Prompt source `math`: competition problems (Hendrycks et al., 2021, arXiv 2103.03874; MIT licence).

From a folder with `train.jsonl` and `test.jsonl`, or from the hub. A row has `problem`, `level`, `type`, and
the final `answer` in LaTeX or a `solution` with it in its last `\boxed{…}`. Its family in the report is its
type. Two of the 7,500 for training have an empty answer; such a row is left out.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chainforge as cf

FILES = {"train": "train", "eval": "test"}
DATASET = "DigitalLearningGmbH/MATH-lighteval"
REVISION = "0530c78699ea5e8eb5530600900e1f328b48acad"
BARE_BOX = re.compile(r"\\boxed\s*([^\s{}$]+)")  # `\boxed 9`


def math(
    *,
    split: str,
    n: int,
    seed: int,
    folder: Path | None = None,
    levels: list[int] | None = None,
    instruction: str | None = None,
    revision: str = REVISION,
) -> Iterator[cf.Prompt]:
    """The rows of the split in their order; a seeded choice of `n` if it has more.

    `levels` takes only problems of these, 1 to 5. Without `folder` they come from the hub, at `revision`.
    `instruction` is written below each problem.
    """
    name = FILES[cf.check_split(split)]
    if levels is not None and not (levels and set(levels) <= {1, 2, 3, 4, 5}):
        raise cf.ChainForgeError(f"levels is {levels}", "name some of the levels 1 to 5, or null for all")
    if folder is not None:
        rows = cf.file_rows(folder / f"{name}.jsonl")
    else:
        rows = cf.hub_rows(DATASET, name, revision=revision)
    return (prompt(row, name, instruction) for row in chosen(rows, levels, n, f"{seed}:{split}"))


def chosen(rows: Iterator[cf.Row], levels: list[int] | None, n: int, seed: str) -> Iterator[cf.Row]:
    fitting = (row for row in rows if levels is None or level(row) in levels)
    yield from cf.choose([row for row in fitting if row.fields.get("answer") != ""], n, seed)


def prompt(row: cf.Row, name: str, instruction: str | None) -> cf.Prompt:
    kind = row.text("type", "subject")
    return cf.Prompt(
        id=f"math-{name}-{row.number:05d}",
        source=re.sub(r"\W+", "_", kind.strip().lower().replace("&", "and")),
        messages=row.messages("problem", instruction=instruction),
        answer=answer(row),
        columns={"level": row.text("level"), "type": kind},
    )


def level(row: cf.Row) -> int | None:
    """1 to 5, or None: a few problems have "Level ?"."""
    found = re.search(r"[1-5]", row.text("level"))
    return int(found[0]) if found else None


def answer(row: cf.Row) -> str:
    if "answer" in row.fields:
        return row.answer("answer")
    solution = row.text("solution")
    inside = cf.boxed(solution)
    bare = BARE_BOX.findall(solution) if inside == solution else [inside]
    if not bare or not bare[-1].strip():
        raise row.error(r"the solution has no \boxed{…}", "add a field `answer`, or leave this row out")
    return str(bare[-1]).strip()


@cf.hookimpl
def register_prompt_sources(register: Callable[[str, Any], None]) -> None:
    register("math", math)
