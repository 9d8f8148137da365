"""Every fault that a provider can have, alone and together: nothing is lost, and the bill is exact."""

from pathlib import Path

import pytest
from asking import accounts_agree, in_process, prompts, run

from chainforge.mock_teacher.faults import FAULTS, Fault
from chainforge.mock_teacher.script import FaultScript

PROMPTS = prompts(16)
PLAIN = [trace for prompt in PROMPTS for trace in in_process().generate([prompt], n=1, seed=17)]
EXIT_CODES = {
    "unauthorized": 3,
    "forbidden": 3,
    "payment_required": 4,
    "unknown_model": 5,
    "model_not_found": 5,
}


def script(**rates: float) -> FaultScript:
    return FaultScript(rates=rates, seed=5, retry_after_s=0.02, blank_s=0.005, drip_s=0.1)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", [f for f in FAULTS.values() if f.then != "stop"], ids=lambda f: f.name)
def test_a_fault_costs_one_more_call_at_most(fault: Fault, stream: bool, tmp_path: Path) -> None:
    ended = run(tmp_path, PROMPTS, faults=script(**{fault.name: 0.5}), stream=stream, deadline_s=0.4)
    struck = sum(ended.ledger.by_fault.values())
    assert ended.stopped is None
    assert struck > 2 or fault.applies == "stream"
    assert ended.ledger.requests <= len(PROMPTS) + struck
    accounts_agree(ended)
    same = [got == meant for got, meant in zip(ended.traces, PLAIN, strict=True)]
    if fault.then in ("answered", "retry"):
        assert all(same) or fault.name == "split_utf8"  # whose text is another
    else:
        assert same.count(False) <= struck
    if fault.then == "skip":
        assert [t.finish for t in ended.traces].count("error") == struck
    else:
        assert len(ended.paid.finals) == len(PROMPTS)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_all_faults_at_once(stream: bool, tmp_path: Path) -> None:
    passing = [f.name for f in FAULTS.values() if f.then in ("answered", "retry", "keep")]
    asked = prompts(150)
    mixed = script(**dict.fromkeys(passing, 0.9 / len(passing)))
    ended = run(tmp_path, asked, faults=mixed, stream=stream, deadline_s=0.6, concurrency=32)
    assert ended.stopped is None
    assert len(ended.paid.finals) == len(asked)
    assert ended.ledger.requests <= len(asked) + sum(ended.ledger.by_fault.values())
    accounts_agree(ended)


@pytest.mark.parametrize("fault", [f for f in FAULTS.values() if f.then == "stop"], ids=lambda f: f.name)
def test_what_no_retry_mends_stops_the_run_and_keeps_what_is_there(fault: Fault, tmp_path: Path) -> None:
    ended = run(tmp_path, PROMPTS, faults=FaultScript(after={fault.name: 7}), concurrency=2)
    assert ended.stopped is not None
    assert ended.stopped.exit_code == EXIT_CODES[fault.name]
    assert 5 <= len(ended.paid.finals) <= 6
    accounts_agree(ended)
    again = run(tmp_path, PROMPTS)
    assert again.traces == PLAIN
    assert again.ledger.requests == len(PROMPTS) - len(ended.paid.finals)


def test_more_samples_pay_for_the_new_ones_only(tmp_path: Path) -> None:
    run(tmp_path, PROMPTS, samples=2)
    more = run(tmp_path, PROMPTS, samples=4)
    assert more.ledger.requests == 2 * len(PROMPTS)
    assert more.traces == [t for p in PROMPTS for t in in_process().generate([p], n=4, seed=17)]
    assert run(tmp_path, PROMPTS, samples=3).ledger.requests == 0
