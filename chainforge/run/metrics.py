"""A row per optimizer step: watchable in logs/ while it runs, whole in plots/ when it is done."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from chainforge.outputs import write_text
from chainforge.run.trackers import Trackers


class StepTable:
    """Columns are fixed at the start; an unknown one raises, an absent or non-finite one stays empty."""

    def __init__(self, live: Path, columns: Sequence[str], trackers: Trackers | None = None) -> None:
        live.parent.mkdir(parents=True, exist_ok=True)
        self._live, self._trackers = live, trackers
        self._columns = ("step", *columns)
        live.write_text(self._line({name: name for name in self._columns}), encoding="utf-8")

    def add(self, step: int, **values: float | None) -> None:
        """Append one row; floats to six significant digits."""
        if unknown := set(values) - set(self._columns):
            raise KeyError(f"no such column: {sorted(unknown)[0]}")
        cells = {name: _cell(value) for name, value in values.items()}
        with self._live.open("a", encoding="utf-8", newline="") as file:
            file.write(self._line({"step": str(step), **cells}))
        if self._trackers:
            self._trackers.add(step, {name: float(cell) for name, cell in cells.items() if cell})

    def state_dict(self) -> dict[str, str]:
        """The rows so far."""
        return {"rows": self._live.read_text(encoding="utf-8")}

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Go on after these rows: later ones, which were written before a kill, will be written again."""
        rows = list(csv.reader(io.StringIO(state["rows"])))
        if rows[:1] != [list(self._columns)] or {len(row) for row in rows} != {len(self._columns)}:
            raise ValueError(f"a table without the columns {', '.join(self._columns)}")
        self._live.write_text(state["rows"], encoding="utf-8")

    def publish(self, path: Path) -> None:
        """Put the finished table where `dvc plots` reads it."""
        write_text(path, self._live.read_text(encoding="utf-8"))
        if self._trackers:
            self._trackers.finish()

    def _line(self, cells: dict[str, str]) -> str:
        buffer = io.StringIO()
        csv.DictWriter(buffer, self._columns, restval="", lineterminator="\n").writerow(cells)
        return buffer.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"
