"""Does a journal hold what was written, and does it agree with itself?"""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from chainforge.providers.calls import Usage
from chainforge.providers.prices import Prices
from chainforge.teachers.journal import NAME, examine
from chainforge.teachers.line import TOKENS, NewerVersion, Record


class Audit:
    """One reading of a journal. `finals` are the newest final answers by fingerprint, each with the line of
    the run that asked; `without_sum` counts lines of an earlier version. Both are there after `problems`."""

    def __init__(self, folder: Path, prices_of: Callable[[Record], Prices | None]) -> None:
        """`prices_of` a run are those that it paid, None where nobody knows."""
        self.folder = folder
        self._prices_of = prices_of
        self.finals: dict[str, tuple[Record, Record]] = {}
        self.run: Record = {}
        self.without_sum = 0
        self.counts = Counter[str]()  # of lines, by kind
        self._sent: set[tuple[str, int]] = set()
        self._ended: set[tuple[str, int]] = set()

    def problems(self) -> Iterator[str]:
        """What contradicts itself, line by line."""
        ended: list[tuple[tuple[str, int], str]] = []  # where lines may be in any order
        for number, _, record, has_sum in examine(self.folder):
            if isinstance(record, ValueError):
                damage = "" if isinstance(record, NewerVersion) else "damaged: "
                yield f"{self.folder / NAME}, line {number}: {damage}{record}"
                continue
            self.without_sum += not has_sum
            self.counts[record["kind"]] += 1
            if record["kind"] == "run":
                self.run = record
            if record["kind"] not in ("sent", "answer", "failed"):
                continue
            name = f"prompt {record['prompt_id']!r}, sample {record['sample']}, attempt {record['attempt']}"
            call = (record["fingerprint"], record["attempt"])
            if record["kind"] == "sent":
                yield from self._is_sent(record, call, name)
            else:
                if not record.get("reused"):
                    ended.append((call, name))
                yield from self._has_ended(record, call, name)
        yield from (f"{name}: ended, but was never sent" for call, name in ended if call not in self._sent)

    def _is_sent(self, record: Record, call: tuple[str, int], name: str) -> Iterator[str]:
        if call in self._sent:
            yield f"{name}: sent twice"
        self._sent.add(call)

    def _has_ended(self, record: Record, call: tuple[str, int], name: str) -> Iterator[str]:
        if not record.get("reused"):
            if call in self._ended:
                yield f"{name}: ended twice"
            self._ended.add(call)
        if record["kind"] != "answer":
            return
        if not self.run:
            yield f"{name}: answered before any run began"
        elif problem := cost_problem(record, self._prices_of(self.run)):
            yield f"{name}: {problem}"
        if record["final"]:
            before = self.finals.get(call[0])
            if before and not may_be_asked_again(before[0], record):
                yield f"{name}: answered twice"
            self.finals[call[0]] = (record, self.run)


def may_be_asked_again(before: Record, now: Record) -> bool:
    """Whether the first answer was cut off, and the second could be longer."""
    return before["cause"] == "truncated" and (now.get("max_tokens") or 0) > (before.get("max_tokens") or 0)


def cost_problem(record: Record, prices: Prices | None) -> str:
    """Why the cost of an answer is not what its tokens cost at these prices; empty if it is."""
    cost = Decimal(record["cost_usd"])
    if record.get("reused"):
        return "" if cost == 0 else f"it was taken from another journal, and costs {cost} USD here"
    if prices is None:
        return ""
    usage = Usage(**{name: record["usage"][name] for name in TOKENS})
    right = prices.cost(usage, window := record.get("price_window", "off-peak"))
    if cost != right:
        return f"it costs {cost} USD, and its tokens cost {right} USD"
    sent_at: Any = record.get("sent_at")
    if sent_at and prices.window(datetime.fromisoformat(sent_at)) != window:
        return f"it was sent at {sent_at}, which is not {window}"
    return ""
