"""What the server did and what it charged for: what a client's own accounts are checked against."""

import os
from collections import Counter
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from chainforge.errors import ChainForgeError
from chainforge.mock_teacher.request import Label
from chainforge.providers.calls import Usage

NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request, at its end.

    `delivered`: an answer was sent to its end, with choices, finish reason and usage. `billed`: it costs
    money, because it was delivered, or generated and then lost. `usage` is what is billed, and `cost` its
    price in USD. `fault` is what happened: where a request of this sort cannot have a fault, the one that it
    got instead.
    """

    number: int
    label: Label | None
    fault: str | None
    status: int
    finish: str | None
    usage: Usage | None
    cost: Decimal
    delivered: bool
    billed: bool

    def as_json(self) -> dict[str, Any]:
        """For the file: the label's parts side by side, null where there was none."""
        row = asdict(self)
        label = row.pop("label") or dict.fromkeys(part.name for part in fields(Label))
        return {"number": self.number, **label, **row, "cost": format(self.cost, "f")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The sums. What is billed and not delivered, a client can know of but not account for exactly."""

    requests: int
    answers: int  # delivered
    billed_usd: Decimal
    delivered_usd: Decimal
    billed_undelivered_usd: Decimal
    output_tokens: int  # billed
    peak_in_flight: int
    by_status: dict[str, int]
    by_fault: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Money as text, because it is exact."""
        rows = asdict(self).items()
        return {name: format(row, "f") if isinstance(row, Decimal) else row for name, row in rows}


class Ledger:
    """All entries since the start; also a line each in a file, if it is given one.

    A line is written in one piece as its request ends, and a file is only ever added to.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.entries: list[Entry] = []
        self.peak_in_flight = 0
        self._file = None if path is None else _open(path)

    def add(self, entry: Entry) -> None:
        """Write down one request."""
        self.entries.append(entry)
        if self._file is not None:
            os.write(self._file, orjson.dumps(entry.as_json(), option=orjson.OPT_APPEND_NEWLINE))

    def totals(self) -> Totals:
        """The sums over all entries."""
        entries = list(self.entries)
        billed = [entry for entry in entries if entry.billed]
        delivered = [entry for entry in entries if entry.delivered]
        billed_usd = sum((entry.cost for entry in billed), NOTHING)
        delivered_usd = sum((entry.cost for entry in delivered), NOTHING)
        return Totals(
            requests=len(entries),
            answers=len(delivered),
            billed_usd=billed_usd,
            delivered_usd=delivered_usd,
            billed_undelivered_usd=billed_usd - delivered_usd,
            output_tokens=sum(entry.usage.output for entry in billed if entry.usage),
            peak_in_flight=self.peak_in_flight,
            by_status=dict(sorted(Counter(str(entry.status) for entry in entries).items())),
            by_fault=dict(sorted(Counter(entry.fault for entry in entries if entry.fault).items())),
        )

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _open(path: Path) -> int:
    try:
        # without waiting: a pipe that nobody reads is an error, not a reason to stand still
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o644)
        os.set_blocking(file, True)
        return file
    except OSError as error:
        raise ChainForgeError(
            f"the ledger cannot be written: {error}", "name a file in a folder that is there"
        ) from error
