"""Servers that answer as no manual says: every fault alone, and many together."""

from itertools import starmap
from pathlib import Path

import pytest
from odd_answers import just
from odd_faults import FAULTS, Odd
from odd_runs import alone, collect, from_an_honest_server, text, wires, wrong
from odd_server import Asked, Said

pytestmark = pytest.mark.usefixtures("quick")

EACH = [(fault, wire, number) for number, fault in enumerate(FAULTS) for wire in wires(fault)]
SAMPLE = {"403_this_prompt", "500_billed", "200_error_429", "finish_'end_turn'", "nested_600", "usage_absent"}
SAMPLE |= {"bom", "cut_at_50%", "choices_two", "choices_with_null", "reset_in_the_body", "gpt_oss_channels"}


def named(fault: Odd, wire: str, number: int) -> object:
    """A sample is quick. Of the others `make test` has one wire each, in turns, and `make test-all` both."""
    turn = wires(fault)[number % len(wires(fault))]
    marks = [] if fault.name in SAMPLE else [pytest.mark.slow if wire == turn else pytest.mark.long]
    return pytest.param(fault, wire, id=f"{fault.name[:40]}-{wire}", marks=marks)


def test_the_table_has_over_a_hundred_faults_each_of_another_name() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) > 100


@pytest.mark.slow
def test_an_honest_server_gives_the_same_bytes_whole_and_streamed(tmp_path: Path) -> None:
    whole, streamed = (collect(tmp_path / str(s), 12, stream=s, concurrency=4) for s in (False, True))
    assert whole.traces == streamed.traces == list(from_an_honest_server(12))
    assert whole.server.usd == streamed.server.usd == whole.paid.spent == streamed.paid.spent
    assert not whole.paid.possibly


@pytest.mark.dear
@pytest.mark.parametrize(("fault", "wire"), list(starmap(named, EACH)))
def test_a_fault_alone_loses_nothing_and_is_paid_once(fault: Odd, wire: str, tmp_path: Path) -> None:
    assert list(wrong(fault, alone(fault, wire, tmp_path))) == []


@pytest.mark.slow
@pytest.mark.parametrize("wire", ["whole", "streamed"])
def test_many_faults_at_once_and_nothing_is_bought_twice(wire: str, tmp_path: Path) -> None:
    """Each strikes one prompt; a second run asks for nothing."""
    passing = [f for f in FAULTS if f.then != "stops" and not f.silent and wire in wires(f)]
    struck = {text(number): fault for number, fault in enumerate(passing, start=16)}
    count = len(passing) + 16

    def answers(asked: Asked) -> Said:
        fault = struck.get(asked.prompt)
        strikes = fault and (fault.then == "skipped" or asked.number == 0)
        return fault(asked) if fault and strikes else just(asked)

    ended = collect(tmp_path, count, answers, concurrency=16, stream=wire == "streamed")
    skipped = [fault for fault in passing if fault.then == "skipped"]
    again = [fault for fault in passing if fault.then == "again"]
    assert ended.stopped is None
    assert len(ended.paid.finals) == count - len(skipped)
    assert count + len(again) <= len(ended.server.ledger) <= count + len(again) + len(skipped)
    assert ended.server.usd <= ended.accounted
    honest = from_an_honest_server(count)
    same = {n for n, f in enumerate(passing, start=16) if f.same and f.then in ("answered", "again")}
    assert [n for n in (*range(16), *sorted(same)) if ended.traces[n] != honest[n]] == []
    asked_again = collect(tmp_path, count, stream=wire == "streamed", concurrency=16)
    assert {entry.prompt for entry in asked_again.server.ledger} <= {
        text(n) for n, fault in enumerate(passing, start=16) if fault.then == "skipped"
    }
