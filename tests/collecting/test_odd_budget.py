"""The budget holds by the server's own ledger, whatever the server says.

CHAINFORGE_ODD_BUDGET_RUNS=1000 pytest tests/collecting/test_odd_budget.py

Where a server can break it: it bills refusals that turn a call away (4xx but 408, 503, 529), it writes more
than max_tokens, or it says fewer tokens than it bills, though as many as the text may well have.
"""

import os
import random
from decimal import Decimal
from pathlib import Path

import pytest
from odd_answers import just
from odd_faults import FAULTS, USAGE, Odd
from odd_runs import Answers, Ended, collect, wires
from odd_server import Asked, Said

pytestmark = pytest.mark.usefixtures("quick")

RUNS = int(os.environ.get("CHAINFORGE_ODD_BUDGET_RUNS", "300"))
QUICK, ORDINARY = 4, 36  # of those runs: in the quick tests, in all but the long ones
SLOW_ONES = {"drip", "retry_after_date", "header_of_1_mb", "2_mb_more", "400_2_mb"}
PASSING = [f for f in FAULTS if f.then != "stops" and not f.silent and f.name not in SLOW_ONES]
BILLED_REFUSALS = [f for f in FAULTS if f.name.endswith("_billed")]
STOPS = (6, 7, 8, 9, 10)  # the budget, refusals, no reasoning, an outage, finishes that nobody knows


def odd_answers(seed: int, wire: str, lie: Odd | None, rate: float) -> Answers:
    """Some answers have a fault, by chance; all others tell this lie about their usage."""
    few = random.Random(seed).sample([f for f in PASSING if wire in wires(f)], 6) + BILLED_REFUSALS

    def answers(asked: Asked) -> Said:
        chance = random.Random(f"{seed} {asked.prompt} {asked.number}")
        if chance.random() < rate:
            return chance.choice(few)(asked)
        return lie(asked) if lie else just(asked)

    return answers


def random_runs(seed: int, folder: Path) -> tuple[Decimal, list[Ended]]:
    """(the budget, one or two runs in one folder)."""
    chance = random.Random(seed)
    wire = chance.choice(("whole", "whole", "streamed"))
    lie = chance.choice([None, *USAGE])
    budget = Decimal(f"{10 ** chance.uniform(-4.5, -2.3):.8f}")
    runs = [
        collect(
            folder,
            chance.randint(4, 16),
            odd_answers(seed * 10 + number, wire, lie, chance.choice((0.0, 0.2, 0.5))),
            said={"max_tokens": chance.choice((50, 300, 2000))},
            budget_usd=float(budget),
            concurrency=chance.choice((1, 4, 16)),
            stream=wire == "streamed",
        )
        for number in range(chance.randint(1, 2))
    ]
    return budget, runs


def overstated(runs: list[Ended]) -> bool:
    """Whether a server said that a call cost more than it can."""
    return any(
        entry.said.fault == "usage_cached_more_than_all" for run in runs for entry in run.server.ledger
    )


def mark(seed: int) -> object:
    marks = [] if seed < QUICK else [pytest.mark.slow if seed < ORDINARY else pytest.mark.long]
    return pytest.param(seed, marks=marks)


@pytest.mark.dear
@pytest.mark.parametrize("seed", [mark(seed) for seed in range(RUNS)])
def test_no_server_bills_more_than_the_budget(seed: int, tmp_path: Path) -> None:
    budget, runs = random_runs(seed, tmp_path)
    billed = sum((ended.server.usd for ended in runs), Decimal(0))
    assert billed <= budget
    assert billed <= runs[-1].accounted
    assert overstated(runs) or runs[-1].accounted <= budget
    assert all(ended.stopped is None or ended.stopped.exit_code in STOPS for ended in runs)


def test_an_honest_server_costs_what_it_says_to_the_last_digit(tmp_path: Path) -> None:
    ended = collect(tmp_path, 12, concurrency=8, budget_usd=0.05)
    assert (ended.paid.spent, ended.paid.possibly) == (ended.server.usd, 0)
