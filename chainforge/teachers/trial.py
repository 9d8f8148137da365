"""What the answers so far say about the rest: its cost, its time and its room on the disk."""

from dataclasses import dataclass, field
from decimal import Decimal
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

from chainforge.hookspecs import ApiTeacher
from chainforge.providers.calls import Usage
from chainforge.providers.prices import FREE
from chainforge.teachers.journal import NAME, read_journal
from chainforge.teachers.line import TOKENS
from chainforge.teachers.paid import Paid

FEWEST = 10  # answers that say something
WITHIN = 1.96  # standard deviations: 95% of a normal distribution


@dataclass(frozen=True, slots=True)
class Trial:
    """Of `answers` questions: output tokens, seconds of all calls and bytes of journal, each per question.

    `usd` is what one cost off peak at today's prices and its standard deviation, None if there are none.
    """

    answers: int
    tokens: float
    seconds: float
    bytes: float
    usd: tuple[float, float] | None

    def usd_for(self, left: int) -> tuple[Decimal, Decimal] | None:
        """Between which sums `left` more answers will cost, 95 times in 100, if they are like these."""
        if self.usd is None:
            return None
        mean, deviation = self.usd
        off = WITHIN * deviation * sqrt(left + left * left / self.answers)
        return Decimal(max(left * mean - off, 0.0)), Decimal(left * mean + off)


@dataclass(slots=True)
class Spent:
    """What one question took, asked however often."""

    usages: list[Usage] = field(default_factory=list)
    besides: Decimal = Decimal(0)  # USD of calls without a usage that can be true
    seconds: float = 0.0


def trial_of(teacher: ApiTeacher, folder: Path, paid: Paid) -> Trial | None:
    """What the journal's answers to today's questions took; None where they are too few to say."""
    own = {paid.older.get(name, name) for name in paid.finals}
    took: dict[str, Spent] = {}
    for _, record in read_journal(folder):
        name = record.get("fingerprint", "")
        if record["kind"] != "answer" or name not in own or record.get("reused"):
            continue
        spent = took.setdefault(name, Spent())
        spent.usages.append(Usage(**{kind: record["usage"][kind] for kind in TOKENS}))
        spent.besides += Decimal(record.get("possibly_usd", 0))
        spent.seconds += record.get("latency_s", 0.0)
    if len(took) < FEWEST:
        return None
    prices, all_spent = teacher.prices or FREE, list(took.values())
    costs = [
        float(sum((prices.cost(usage, "off-peak") for usage in spent.usages), spent.besides))
        for spent in all_spent
    ]
    return Trial(
        answers=len(took),
        tokens=fmean(sum(usage.output for usage in spent.usages) for spent in all_spent),
        seconds=fmean(spent.seconds for spent in all_spent),
        bytes=(folder / NAME).stat().st_size / max(len(paid.under), 1),
        usd=(fmean(costs), stdev(costs)) if teacher.prices else None,
    )
