"""Files that another process is writing: what is whole in them, and never an error.

A last line without its end is left out, and so is a row of another shape. A file that is gone, or that
cannot be read, is None.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Table = Mapping[str, list[float]]  # columns of equal length; NaN where a cell is empty
HUGE = 1e100  # beyond, sums overflow
LARGEST = 2**27  # bytes; no log of a step is as large


class Reader:
    """Reads a file again only where it has changed: every second, by whoever watches."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, object], tuple[tuple[int, ...], Any]] = {}

    def table(self, path: Path) -> Table | None:
        """The columns of a CSV file of numbers."""
        return self._read(path, parse_table)

    def rows(self, path: Path) -> list[dict[str, Any]]:
        """The objects of a JSONL file."""
        return self._read(path, parse_rows) or []

    def object(self, path: Path) -> dict[str, Any] | None:
        """The one object of a JSON file."""
        return self._read(path, parse_object)

    def _read(self, path: Path, parse: Callable[[str], T | None]) -> T | None:
        try:
            found = path.stat()
            sign = (found.st_mtime_ns, found.st_size, found.st_ino)
            before, value = self._known.get((path, parse), ((), None))
            if sign != before:
                small = path.is_file() and found.st_size <= LARGEST
                value = parse(path.read_text(encoding="utf-8", errors="replace")) if small else None
                self._known[path, parse] = (sign, value)
        except (OSError, ValueError, RecursionError, csv.Error):
            return None
        return value  # type: ignore[no-any-return]


def parse_table(text: str) -> Table | None:
    """None without a whole first line."""
    whole = text[: text.rfind("\n") + 1]
    lines = csv.reader(whole.splitlines())
    names = next(lines, None)
    if not names:
        return None
    columns: dict[str, list[float]] = {name: [] for name in names}
    for cells in lines:
        if len(cells) == len(names):
            for name, cell in zip(names, cells, strict=True):
                columns[name].append(_number(cell))
    return columns if len(columns) == len(names) else None


def parse_rows(text: str) -> list[dict[str, Any]]:
    """Lines that are none are left out."""
    return list(_objects(text[: text.rfind("\n") + 1]))


def parse_object(text: str) -> dict[str, Any] | None:
    """Raises ValueError where it is no JSON."""
    found = json.loads(text)
    return found if isinstance(found, dict) else None


def _objects(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found


def _number(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        return math.nan
    return value if abs(value) <= HUGE else math.nan


def number_of(value: Any) -> float | None:
    """A number of ordinary size, or nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= HUGE else None  # NaN is not
