"""Rows that are kept as they come: append-only JSONL, of which a torn last line is dropped."""

import json
import os
from pathlib import Path
from typing import Any

from chainforge.errors import ChainForgeError


class Journal:
    """`rows` has what an earlier run left. Without a path, nothing is kept; without `writes`, nothing new.

    Raises ChainForgeError for a file that is no journal.
    """

    def __init__(self, path: Path | None, *, writes: bool = True) -> None:
        self._path, self._writes = path, writes
        self.rows: list[Any] = []
        if path and path.exists():
            self.rows = self._read(path)

    def append(self, row: Any) -> None:
        """Hand one row to the operating system: killing this process does not lose it."""
        if self._path and self._writes:
            with self._path.open("a", encoding="ascii", newline="\n") as file:
                file.write(json.dumps(row) + "\n")

    def unfit(self, number: int, error: Exception) -> ChainForgeError:
        """The error for a row, counted from 1, that is not of this step. Sets the file aside."""
        assert self._path is not None
        aside = self._path.with_name(self._path.name + ".unfit")
        if self._writes:
            os.replace(self._path, aside)
        reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        return ChainForgeError(
            f"{self._path}, line {number}: not a row of this step ({reason:.300})",
            f"the file is {aside} now; run the same command again: it starts afresh",
        )

    def _read(self, path: Path) -> list[Any]:
        if not path.is_file():
            raise ChainForgeError(
                f"{path} is no file", "remove what lies there, then run the same command again"
            )
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content and self._writes:
            with path.open("r+b") as file:
                file.truncate(len(whole))
        rows = []
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise self.unfit(number, error) from error
        return rows
