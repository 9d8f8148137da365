"""Every fault that a provider can have, alone and together: nothing is lost, and the bill is exact."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from asking import accounts_agree, in_process, prompts, run

from chainforge.mock_teacher.faults import FAULTS, Fault
from chainforge.mock_teacher.script import FaultScript
from chainforge.teachers.journal import read_journal

PROMPTS = prompts(16)
PLAIN = [trace for prompt in PROMPTS for trace in in_process().generate([prompt], n=1, seed=17)]
WIRES: dict[str, dict[str, Any]] = {
    "whole": {},
    "streamed": {"stream": True},
    "anthropic": {"teacher": {"plugin": "anthropic"}},
}
each_wire = pytest.mark.parametrize(
    "wire",
    [pytest.param(wire, marks=pytest.mark.slow if wire == "whole" else pytest.mark.long) for wire in WIRES],
)
SILENT = ("hang", "blank_lines_endless")
SILENT_S = 4.0  # a busy machine may take as long for an honest answer: that call is counted as late
EXIT_CODES = {
    "unauthorized": 3,
    "forbidden": 3,
    "payment_required": 4,
    "unknown_model": 5,
    "model_not_found": 5,
}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-no-key-0000")


def script(**rates: float) -> FaultScript:
    return FaultScript(rates=rates, seed=5, retry_after_s=0.02, blank_s=0.005, drip_s=0.1)


@each_wire
@pytest.mark.parametrize("fault", [f for f in FAULTS.values() if f.then != "stop"], ids=lambda f: f.name)
def test_a_fault_costs_one_more_call_at_most(fault: Fault, wire: str, tmp_path: Path) -> None:
    deadline_s = SILENT_S if fault.name in SILENT else 60.0
    rate = 0.25 if fault.name == "unknown_finish" else 0.5  # more of those would stop the run
    ended = run(tmp_path, PROMPTS, faults=script(**{fault.name: rate}), **WIRES[wire], deadline_s=deadline_s)
    struck = sum(ended.ledger.by_fault.values())
    assert ended.stopped is None
    assert struck > 2 or fault.only == "stream"
    assert ended.ledger.requests <= len(PROMPTS) + max(struck, ended.late)
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


@each_wire
def test_all_faults_at_once(wire: str, tmp_path: Path) -> None:
    passing = [f.name for f in FAULTS.values() if f.then in ("answered", "retry", "keep")]
    asked = prompts(150)
    mixed = script(**dict.fromkeys(passing, 0.9 / len(passing)))
    ended = run(tmp_path, asked, faults=mixed, **WIRES[wire], deadline_s=SILENT_S, concurrency=32)
    assert ended.stopped is None
    assert len(ended.paid.finals) == len(asked)
    assert ended.ledger.requests <= len(asked) + sum(ended.ledger.by_fault.values()) + ended.late
    accounts_agree(ended)


@each_wire
@pytest.mark.parametrize("name", EXIT_CODES)
def test_what_refuses_everybody_from_the_first_call_on_stops_the_run(
    name: str, wire: str, tmp_path: Path
) -> None:
    ended = run(tmp_path, PROMPTS, faults=FaultScript(after={name: 1}), concurrency=2, **WIRES[wire])
    assert ended.stopped is not None
    assert ended.stopped.exit_code == EXIT_CODES[name]
    assert not ended.paid.finals
    accounts_agree(ended)
    again = run(tmp_path, PROMPTS, **WIRES[wire])
    assert again.traces == PLAIN
    assert again.ledger.requests == len(PROMPTS)


@each_wire
@pytest.mark.parametrize("name", EXIT_CODES)
def test_what_no_retry_mends_stops_the_run_and_keeps_what_is_there(
    name: str, wire: str, tmp_path: Path
) -> None:
    ended = run(tmp_path, PROMPTS, faults=FaultScript(after={name: 7}), concurrency=2, **WIRES[wire])
    assert ended.stopped is not None
    assert ended.stopped.exit_code == EXIT_CODES[name]
    assert 5 <= len(ended.paid.finals) <= 6
    accounts_agree(ended)
    again = run(tmp_path, PROMPTS, **WIRES[wire])
    assert again.traces == PLAIN
    assert again.ledger.requests == len(PROMPTS) - len(ended.paid.finals)


@each_wire
def test_a_paid_answer_without_usage_is_kept_and_counts_at_its_most(wire: str, tmp_path: Path) -> None:
    ended = run(tmp_path, PROMPTS, faults=script(missing_usage=1.0), **WIRES[wire])
    assert ended.ledger.requests == len(PROMPTS)
    assert ended.traces == PLAIN
    sent = [Decimal(record["most_usd"]) for _, record in read_journal(tmp_path) if record["kind"] == "sent"]
    assert ended.paid.spent + ended.paid.possibly == sum(sent) >= ended.ledger.billed_usd


@each_wire
def test_a_paid_answer_without_its_end_is_kept_as_far_as_it_came(wire: str, tmp_path: Path) -> None:
    ended = run(tmp_path, PROMPTS, faults=script(missing_finish=1.0), **WIRES[wire])
    failed = [record for _, record in read_journal(tmp_path) if record["kind"] == "failed"]
    assert [record["cause"] for record in failed] == ["cut"] * len(PROMPTS)
    kept = {record["prompt_id"]: json.dumps(record["partial"], ensure_ascii=False) for record in failed}
    assert all(json.dumps(t.content, ensure_ascii=False)[1:-1] in kept[t.prompt_id] for t in PLAIN)
    assert ended.traces == PLAIN


@pytest.mark.slow
@pytest.mark.parametrize("off", [{"thinking": False}, {"plugin": "anthropic", "thinking_tokens": 0}], ids=str)
def test_with_thinking_off_every_answer_is_paid_once(off: dict[str, Any], tmp_path: Path) -> None:
    ended = run(tmp_path, PROMPTS, faults=script(no_reasoning=1.0), teacher=off)
    assert ended.stopped is None
    assert ended.ledger.requests == len(PROMPTS)
    assert [(t.reasoning, t.content) for t in ended.traces] == [("", t.content) for t in PLAIN]
    accounts_agree(ended)


@pytest.mark.slow
def test_more_samples_pay_for_the_new_ones_only(tmp_path: Path) -> None:
    run(tmp_path, PROMPTS, samples=2)
    more = run(tmp_path, PROMPTS, samples=4)
    assert more.ledger.requests == 2 * len(PROMPTS)
    assert more.traces == [t for p in PROMPTS for t in in_process().generate([p], n=4, seed=17)]
    assert run(tmp_path, PROMPTS, samples=3).ledger.requests == 0
