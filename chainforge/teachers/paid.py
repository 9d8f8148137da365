"""What a journal holds: which questions have their answer, and what it all cost."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from chainforge.teachers.finishes import finish_of
from chainforge.teachers.journal import Record, read_at, read_journal


@dataclass(slots=True)
class Paid:
    """`finals` has the place of each question's answer by fingerprint, `sent` how often it was asked.

    `spent` is what answers cost; `flying` the most that each call without an end can have cost, by
    fingerprint and attempt; `lost` the same of calls that broke. `unanswered` has (cause, what was said) of
    questions that were given up, `unknown` those whose answer ended with a word that nobody knew.
    """

    finals: dict[str, int] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)
    flying: dict[tuple[str, int], Decimal] = field(default_factory=dict)
    spent: Decimal = Decimal(0)
    lost: Decimal = Decimal(0)
    broken: int = 0  # calls that `lost` is about
    unanswered: dict[str, tuple[str, str]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
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
        if kind == "answer" and record["final"]:
            self._answered(key[0], offset, record)
        if record.get("reused"):  # asked elsewhere; a call of this journal may be in flight all the same
            return
        most = self.flying.pop(key, Decimal(0))
        if kind == "answer":
            self.spent += Decimal(record["cost_usd"])
            if beyond := Decimal(record.get("possibly_usd", 0)):
                self._lose(beyond)
            return
        if record["billed"]:
            self._lose(most)
        if record["final"]:
            self.unanswered[key[0]] = (record["cause"], record["message"])

    def _answered(self, fingerprint: str, offset: int, record: Record) -> None:
        self.finals[fingerprint] = offset
        self.unanswered.pop(fingerprint, None)
        if finish_of(record.get("finish", "stop")) is None:
            self.unknown.add(fingerprint)

    def _lose(self, most: Decimal) -> None:
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
