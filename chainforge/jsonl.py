"""JSONL files: read with errors that name the line, write whole or not at all."""

import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import jsonlines

from chainforge.errors import ChainForgeError
from chainforge.outputs import whole_file
from chainforge.providers.reasoning import without_reasoning
from chainforge.records import Completion, Example, Prompt, Record, Trace, from_json, to_json


class Number(float):
    """A number with a point or an exponent that keeps how it was written: `str` of 0.00005 is "0.00005"."""

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.text,)


def read_rows(path: Path, places: Container[int] | None = None) -> Iterator[tuple[int, Any]]:
    """Yield (line number from 1, value), with one row at a time in memory.

    With `places`, only rows at these places, counted from 0 without empty lines, are read and yielded.
    Raises ChainForgeError for a missing, empty or broken file.
    """
    for place, (number, line) in enumerate(filled_lines(path)):
        if places is not None and place not in places:
            continue
        try:
            yield number, jsonlines.Reader([line], loads=loads).read()
        except jsonlines.InvalidLineError as error:
            reason = str(error).partition(" (line")[0]
            raise ChainForgeError(
                f"{path}, line {number}: not JSON: {reason}", "write one JSON object per line (JSONL)"
            ) from error


def count_rows(path: Path) -> int:
    """How many rows a file has; none of them is read. Raises ChainForgeError for a missing or empty file."""
    return sum(1 for _ in filled_lines(path))


def filled_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line) of lines that are not empty."""
    if not path.is_file():
        raise ChainForgeError(f"there is no file {path}", "check the path, or run the step that writes it")
    with path.open("rb") as lines:
        empty = True
        for number, line in enumerate(lines, start=1):
            if line.strip():
                empty = False
                yield number, line
    if empty:
        raise ChainForgeError(f"{path} is empty", "it needs at least one JSON object, one per line")


def loads(line: str | bytes) -> Any:
    """JSON. Raises ValueError for what is none, values nested too deep included."""
    try:
        return json.loads(line, parse_float=Number)
    except RecursionError:
        raise ValueError("nested too deep") from None


def read_records(path: Path, kind: type[Record], limit: int | None = None) -> list[Record]:
    """All records of a file, or the first `limit`, no line beyond which is read.

    A conversation comes without what an assistant thought in earlier turns, whoever wrote the file.
    Raises ChainForgeError that names the line and the field.
    """
    records = []
    for number, row in islice(read_rows(path), limit):
        try:
            record = from_json(kind, row)
        except ValueError as error:
            raise ChainForgeError(
                f"{path}, line {number}: {error}", f"each line must be one {kind.__name__} record"
            ) from error
        if isinstance(record, Prompt | Example):
            record = replace(record, messages=without_reasoning(record.messages))
        records.append(record)
    return records


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one object per line; `path` is never half written."""
    with whole_file(path) as file, jsonlines.Writer(file) as writer:
        writer.write_all(rows)


def write_records(path: Path, records: Iterable[Prompt | Trace | Completion | Example]) -> None:
    """`write_rows` for records."""
    write_rows(path, map(to_json, records))
