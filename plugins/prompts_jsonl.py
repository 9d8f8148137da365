"""Prompt source `jsonl`: a data set of your own, one JSON object per line.

A row holds a question, or a `messages` list in its place, and usually the answer. For GSM8K set
`answer_pattern: '####\\s*(.+)'` and `solution: answer`: teacher `recorded` then has its reasoning.
"""

import random
import re
from array import array
from collections.abc import Callable, Container, Iterator
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
    if split not in ("train", "eval"):
        raise cf.ChainForgeError(f"there is no split called {split!r}", "ask for train or eval")
    pattern = None if answer_pattern is None else compiled(answer_pattern)
    path = train if split == "train" else eval
    seen: dict[str, int] = {}
    for line, row in cf.read_rows(path, chosen(cf.count_rows(path), n, f"{seed}:{split}")):
        read = Row(path, line, row)
        identity = read.text("id") if "id" in read.row else f"{path.stem}-{line}"
        if identity in seen:
            raise read.error(
                f"id {identity!r} is that of line {seen[identity]} too", "give each row its own id"
            )
        seen[identity] = line
        yield cf.Prompt(
            id=identity,
            source=path.stem,
            messages=read.messages(question, instruction),
            answer=None if answer is None else read.answer(answer, pattern),
            columns={} if solution is None else {"solution": read.text(solution)},
        )


def chosen(count: int, n: int, seed: str) -> Container[int]:
    """The places of `n` of `count` rows, or of all where there are no more."""
    if n >= count:
        return range(count)
    order = array("L", range(count))  # a list of a million numbers would take ten times the memory
    random.Random(seed).shuffle(order)
    return set(order[:n])


def compiled(pattern: str) -> re.Pattern[str]:
    try:
        result = re.compile(pattern)
    except re.error as error:
        raise cf.ChainForgeError(
            f"answer_pattern: {pattern!r} is not a regular expression: {error}",
            r"for GSM8K it is '####\s*(.+)'",
        ) from error
    if result.groups != 1:
        raise cf.ChainForgeError(
            f"answer_pattern: {pattern!r} has {result.groups} groups, not one",
            r"put the answer in parentheses; for GSM8K it is '####\s*(.+)'",
        )
    return result


class Row:
    """A row that knows where it stands, so that every complaint names file, line and field."""

    def __init__(self, path: Path, line: int, row: Any) -> None:
        self.path, self.line, self.row = path, line, row
        if not isinstance(row, dict):
            raise self.error(
                f"expected an object, found {type(row).__name__}", "write one JSON object per line"
            )

    def error(self, problem: str, fix: str) -> cf.ChainForgeError:
        return cf.ChainForgeError(f"{self.path}, line {self.line}: {problem}", fix)

    def text(self, field: str) -> str:
        """A field as text; a number as it is written in the file."""
        if field not in self.row:
            raise self.error(
                f"there is no field {field!r}",
                f"name the right one in the settings of source jsonl; this row has: {', '.join(self.row)}",
            )
        value = self.row[field]
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
            raise self.error(f"field {field!r} holds no text but {value!r:.40}", "write a text or a number")
        return str(value)

    def answer(self, field: str, pattern: re.Pattern[str] | None) -> str:
        text = self.text(field)
        if pattern is None:
            return text.strip()
        if not (found := pattern.search(text)) or not (found[1] or "").strip():
            raise self.error(
                f"answer_pattern {pattern.pattern!r} finds nothing in field {field!r}: {text[-60:]!r}",
                "correct the pattern, or leave this row out of the data",
            )
        return str(found[1]).strip()

    def messages(self, question: str, instruction: str | None) -> tuple[cf.Message, ...]:
        """The row's own `messages` if it has any, else its question; the instruction below the last one."""
        if "messages" not in self.row:
            history: list[cf.Message] = [{"role": "user", "content": self.text(question)}]
        else:
            turns = self.row["messages"]
            history = turns if isinstance(turns, list) and turns else [turns]
            try:
                cf.check_messages(history)
            except ValueError as error:
                raise self.error(
                    f"field 'messages': {error}", 'a message is {"role": "user", "content": "…"}'
                ) from error
            history = [cf.Message(role=turn["role"], content=turn["content"]) for turn in history]
            if history[-1]["role"] != "user":
                raise self.error("the last of `messages` is not from the user", "end with the user's turn")
        if instruction is not None:
            history[-1] = {"role": "user", "content": f"{history[-1]['content']}\n{instruction}"}
        return tuple(history)


@cf.hookimpl
def register_prompt_sources(register: Callable[[str, Any], None]) -> None:
    register("jsonl", jsonl)
