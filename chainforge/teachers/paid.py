"""What a journal holds: which questions have their answer, and what it all cost."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from chainforge.teachers.journal import Record, read_at, read_journal


@dataclass(slots=True)
class Paid:
    """`finals` has the place of each question's answer by fingerprint, `sent` how often it was asked.

    `spent` is what answers cost; `flying` the most that each call without an end can have cost, by
    fingerprint and attempt; `lost` the same of calls that broke.
    """

    finals: dict[str, int] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)
    flying: dict[tuple[str, int], Decimal] = field(default_factory=dict)
    spent: Decimal = Decimal(0)
    lost: Decimal = Decimal(0)
    broken: int = 0  # calls that `lost` is about
    run: Record | None = None  # the newest line of that kind

    @property
    def possibly(self) -> Decimal:
        """The most that may have been paid for nothing."""
        return self.lost + sum(self.flying.values(), Decimal(0))

    def add(self, offset: int, record: Record) -> None:
        """Take one more line into account."""
        kind = record["kind"]
        if kind == "run":
            self.run = record
            return
        key = (record["fingerprint"], record["attempt"])
        if kind == "sent":
            self.sent[key[0]] += 1
            self.flying[key] = Decimal(record["most_usd"])
            return
        if record.get("reused"):  # asked elsewhere; a call of this journal may be in flight all the same
            self.finals[key[0]] = offset
            return
        most = self.flying.pop(key, Decimal(0))
        if kind == "answer":
            self.spent += Decimal(record["cost_usd"])
            if record["final"]:
                self.finals[key[0]] = offset
        elif record["billed"]:
            self.lost += most
            self.broken += 1


def read_paid(folder: Path) -> Paid:
    """The whole journal of a folder; nothing, if there is none."""
    paid = Paid()
    for offset, record in read_journal(folder):
        paid.add(offset, record)
    return paid


def final_answers(folder: Path, paid: Paid, fingerprints: Iterator[str]) -> Iterator[Record]:
    """The records that answer these questions, in their order."""
    return read_at(folder, (paid.finals[fingerprint] for fingerprint in fingerprints))
