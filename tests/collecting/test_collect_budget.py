"""No run, however it goes, is charged more than its budget.

CHAINFORGE_BUDGET_RUNS=1000 pytest tests/collecting/test_collect_budget.py
"""

import os
import random
from pathlib import Path

import pytest
from asking import Run, accounts_agree, prompts, run

from chainforge.mock_teacher.faults import FAULTS
from chainforge.mock_teacher.script import FaultScript

SILENT_S = 2.0  # until a call of a run with hanging servers is given up
RUNS = int(os.environ.get("CHAINFORGE_BUDGET_RUNS", "25"))
PASSING = [f.name for f in FAULTS.values() if f.then != "stop" and f.name != "slow_drip"]


def random_run(seed: int, folder: Path) -> tuple[Run, float]:
    """(a run with random prompts, faults, limits and budget; that budget)."""
    chance = random.Random(seed)
    few = chance.sample(PASSING, 4)
    budget = 10 ** chance.uniform(-4.5, -2.0)
    ended = run(
        folder,
        chance.sample(prompts(60), chance.randint(4, 16)),
        faults=FaultScript(rates=dict.fromkeys(few, 0.1), seed=seed, retry_after_s=0.01, blank_s=0.005),
        samples=chance.randint(1, 2),
        mock={"latency_s": chance.choice((0.0, 0.01))},
        teacher={
            "plugin": chance.choice(("openai_compatible", "openai_compatible", "anthropic")),
            "max_tokens": chance.choice((50, 300, 2000)),
        },
        budget_usd=budget,
        concurrency=chance.choice((1, 4, 16)),
        deadline_s=SILENT_S,
        stream=chance.random() < 0.3,
    )
    return ended, budget


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[] if seed < 3 else [pytest.mark.slow]) for seed in range(RUNS)]
)
def test_the_ledger_never_passes_the_budget(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-no-key-0000")
    ended, budget = random_run(seed, tmp_path)
    assert ended.ledger.billed_usd <= budget
    assert ended.paid.spent + ended.paid.possibly <= budget
    accounts_agree(ended)
    if ended.stopped:
        assert ended.stopped.exit_code in (6, 7, 9)  # the budget; or the first five all failed
