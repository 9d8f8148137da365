"""Rows that are kept as they come: append-only JSONL, of which a torn last line is dropped."""

import json
from pathlib import Path
from typing import Any


class Journal:
    """`rows` has what an earlier run left. Without a path, nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.rows: list[Any] = []
        if path and path.exists():
            self.rows = self._read(path)

    def append(self, row: Any) -> None:
        """Hand one row to the operating system: killing this process does not lose it."""
        if self._path:
            with self._path.open("a", encoding="ascii", newline="\n") as file:
                file.write(json.dumps(row) + "\n")

    @staticmethod
    def _read(path: Path) -> list[Any]:
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with path.open("r+b") as file:
                file.truncate(len(whole))
        return [json.loads(line) for line in whole.splitlines()]
