"""JSONL files: read with errors that name the line, write whole or not at all."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonlines

from chainforge.errors import ChainForgeError
from chainforge.outputs import whole_file
from chainforge.records import Completion, Example, Prompt, Record, Trace, from_json, to_json


def read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number from 1, value). Raises ChainForgeError for a missing, empty or broken file."""
    if not path.is_file():
        raise ChainForgeError(f"there is no file {path}", "check the path, or run the step that writes it")
    empty = True
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            empty = False
            try:
                yield number, jsonlines.Reader([line]).read()
            except jsonlines.InvalidLineError as error:
                reason = str(error).partition(" (line")[0]
                raise ChainForgeError(
                    f"{path}, line {number}: not JSON: {reason}", "write one JSON object per line (JSONL)"
                ) from error
    if empty:
        raise ChainForgeError(f"{path} is empty", "it needs at least one JSON object, one per line")


def read_records(path: Path, kind: type[Record]) -> list[Record]:
    """All records of a file. Raises ChainForgeError that names the line and the field."""
    records = []
    for number, row in read_rows(path):
        try:
            records.append(from_json(kind, row))
        except ValueError as error:
            raise ChainForgeError(
                f"{path}, line {number}: {error}", f"each line must be one {kind.__name__} record"
            ) from error
    return records


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one object per line; `path` is never half written."""
    with whole_file(path) as file, jsonlines.Writer(file) as writer:
        writer.write_all(rows)


def write_records(path: Path, records: Iterable[Prompt | Trace | Completion | Example]) -> None:
    """`write_rows` for records."""
    write_rows(path, map(to_json, records))
