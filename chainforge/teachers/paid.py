"""What a journal holds: which questions have their answer, and what it all cost."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from chainforge.teachers.finishes import finish_of
from chainforge.teachers.journal import read_at, read_journal
from chainforge.teachers.line import Record
from chainforge.teachers.question import LIMITS, asked_of
from chainforge.teachers.verdict import LAST


@dataclass(slots=True)
class Paid:
    """`finals` has the place of each question's answer by fingerprint, `sent` how often it was asked.

    By fingerprint, too: `cut` has the max_tokens of answers that ended for want of them; `under` who was
    asked, as a key of `teachers`; `older` an earlier version's fingerprint, under which the answer is found.
    `spent` is what answers cost; `flying` the most that each call without an end can have cost, by
    fingerprint and attempt; `lost` the same of calls that broke. `unanswered` has (cause, what was said) of
    questions that were given up; `doubted` were refused when it was not clear whether all are;
    `unknown` ended with a word that nobody knew.
    """

    finals: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    under: dict[str, str] = field(default_factory=dict)
    teachers: dict[str, Record] = field(default_factory=dict)
    older: dict[str, str] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)
    flying: dict[tuple[str, int], Decimal] = field(default_factory=dict)
    spent: Decimal = Decimal(0)
    lost: Decimal = Decimal(0)
    written_off: Decimal = Decimal(0)
    answers: int = 0
    broken: int = 0  # calls whose cost is in `lost`
    unanswered: dict[str, tuple[str, str]] = field(default_factory=dict)
    doubted: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    run: Record | None = None  # the newest line of the kind "run"
    _teacher: str = ""

    @property
    def possibly(self) -> Decimal:
        """The most that may have been paid for nothing."""
        return self.lost + sum(self.flying.values(), Decimal(0))

    def add(self, offset: int, record: Record) -> None:
        """Take one more line into account."""
        match record["kind"]:
            case "run":
                self.run = record
                identity = record.get("identity", {})
                self._teacher = json.dumps(identity, sort_keys=True)
                self.teachers[self._teacher] = identity
                return
            case "written_off":
                self._write_off(Decimal(record["billed_usd"]))
                return
        key = (record["fingerprint"], record["attempt"])
        if record["kind"] == "sent":
            self.sent[key[0]] += 1
            self.flying[key] = Decimal(record["most_usd"])
        elif record.get("reused"):  # answered in another journal; a call of this one may be in flight too
            self._final(offset, record)
        else:
            self._ended(offset, record, self.flying.pop(key, Decimal(0)))

    def _ended(self, offset: int, record: Record, most: Decimal) -> None:
        if record["kind"] == "answer":
            self.spent += Decimal(record["cost_usd"])
            self.answers += 1
            if beyond := Decimal(record.get("possibly_usd", 0)):
                self._lose(beyond)
            if record["final"]:
                self._final(offset, record)
            return
        if record["billed"]:
            self._lose(most)
        if record["final"]:
            self.unanswered[record["fingerprint"]] = (record["cause"], record["message"])
        elif record.get("cause") in LAST:
            self.doubted.add(record["fingerprint"])

    def _lose(self, most: Decimal) -> None:
        self.lost += most
        self.broken += 1

    def _final(self, offset: int, record: Record) -> None:
        name = record["fingerprint"]
        self.finals[name], self.under[name] = offset, self._teacher
        self.cut.pop(name, None)
        self.unanswered.pop(name, None)
        self.doubted.discard(name)
        if finish_of(record.get("finish", "stop")) is None:
            self.unknown.add(name)
        if finish_of(record.get("finish", "")) == "length":
            self.cut[name] = record.get("max_tokens") or max(
                limit_of(self.teachers.get(self._teacher, {})), record["usage"]["output"]
            )

    def _write_off(self, billed: Decimal) -> None:
        """The bill shows that `billed` USD of what was possibly paid were charged."""
        self.written_off += self.possibly - billed
        self.spent += billed
        self.lost, self.broken = Decimal(0), 0
        self.flying.clear()


def limit_of(identity: Record) -> int:
    """The max_tokens of a teacher; 0 if it has none."""
    parameters: Any = identity.get("parameters")
    found = [parameters.get(name) for name in LIMITS - {"timeout"}] if isinstance(parameters, dict) else []
    return max([0, *(tokens for tokens in found if isinstance(tokens, int))])


def other_settings(paid: Paid, identity: Record) -> dict[str, tuple[Record, int]]:
    """Answers that were given under settings which this teacher does not have: (what those are, how many)."""
    found: dict[str, tuple[Record, int]] = {}
    now = asked_of(identity)
    for name, count in Counter(paid.under.values()).items():
        before = asked_of(paid.teachers.get(name, {}))
        if before != now:
            key = json.dumps(before, sort_keys=True)
            found[key] = (before, found.get(key, (before, 0))[1] + count)
    return found


def read_paid(folder: Path) -> Paid:
    """The whole journal of a folder; nothing, if there is none."""
    paid = Paid()
    for offset, record in read_journal(folder):
        paid.add(offset, record)
    return paid


def final_answers(folder: Path, paid: Paid, fingerprints: Iterator[str]) -> Iterator[Record]:
    """The records that answer these questions, in their order."""
    return read_at(folder, (paid.finals[fingerprint] for fingerprint in fingerprints))
