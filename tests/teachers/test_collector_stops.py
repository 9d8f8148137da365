"""When a collection ends before its time: why, and what is kept."""

import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from fake_api import (
    FakeTeacher,
    Step,
    answer,
    ask,
    broken,
    lines,
    refusal,
    stopped,
    whole,
)
from virtual_time import Clock

from chainforge.errors import ChainForgeError
from chainforge.providers.openai_chat import read_chat
from chainforge.run.stopping import Stopping
from chainforge.teachers.collector import Collector
from chainforge.teachers.paid import read_paid
from chainforge.teachers.stops import PATIENCE_S, UNREACHED_S, CollectionStopped


@pytest.mark.usefixtures("clock")
def test_a_run_in_which_every_question_fails_is_not_called_done(tmp_path: Path) -> None:
    with pytest.raises(CollectionStopped, match="the first 2 questions all failed") as stopped:
        ask(FakeTeacher(steps={f"p{n}": [refusal(500)] * 99 for n in range(2)}), 2, tmp_path)
    assert stopped.value.exit_code == 9


@pytest.mark.dear
@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("step", "code", "said"),
    [
        (refusal(401, "invalid"), 3, "set the right key"),
        (refusal(403), 3, "a key in the environment that may ask"),
        (refusal(402, "Insufficient Balance"), 4, "top up"),
        (refusal(404), 5, "model or base_url"),
        (refusal(400, "Model Not Exist"), 5, "model or base_url"),
        (refusal(422, "bad effort"), 7, "teacher's settings"),
    ],
)
def test_what_is_refused_to_everybody_from_some_time_on_stops_the_run_and_keeps_what_is_in_flight(
    step: Step, code: int, said: str, tmp_path: Path, clock: Clock
) -> None:
    start = clock.now
    teacher = FakeTeacher(latency_s=lambda: random.uniform(1, 4))
    teacher.chance = lambda call: step if clock.now - start > 20 else None
    error = stopped(code, teacher, 2000, tmp_path, concurrency=32)
    assert said in str(error)
    assert str(step) in str(error)
    assert "no answer is asked or paid for twice" in str(error)
    done, refused = len(read_paid(tmp_path).finals), len(lines(tmp_path, "failed"))
    assert done + refused == len(teacher.calls)
    assert refused <= 6 * 32
    assert read_paid(tmp_path).spent == teacher.billed
    whole(tmp_path)
    if code != 7:
        ask(again := FakeTeacher(), 2000, tmp_path)
        assert len(again.calls) == 2000 - done


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("step", "code"), [(refusal(422, "bad effort"), 7), (refusal(400, "no"), 7)])
def test_when_the_first_five_are_refused_the_others_are_not_asked(
    step: Step, code: int, tmp_path: Path
) -> None:
    teacher = FakeTeacher(chance=lambda call: step, latency_s=lambda: 1)
    error = stopped(code, teacher, 100, tmp_path, concurrency=1)
    assert len(teacher.calls) == 5
    assert str(step) in str(error)


@pytest.mark.usefixtures("clock")
def test_one_refusal_among_answers_stops_nothing(tmp_path: Path) -> None:
    teacher = FakeTeacher(steps={f"p{n}": [refusal(422)] for n in range(3, 100, 4)})
    assert len(ask(teacher, 100, tmp_path, concurrency=8).finals) == 75


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("content", ["42", None])
def test_when_a_fifth_of_the_first_fifty_have_no_reasoning_the_mode_is_wrong(
    content: str | None, tmp_path: Path
) -> None:
    silent = answer(content, reasoning="" if content else "thought")
    teacher = FakeTeacher(chance=lambda call: silent if call.seed % 3 == 0 else None)
    error = stopped(8, teacher, 200, tmp_path, concurrency=4)
    assert len(teacher.calls) <= 50 + 4
    assert "without reasoning" in str(error)


@pytest.mark.usefixtures("clock")
def test_some_answers_without_reasoning_are_no_reason_to_stop(tmp_path: Path) -> None:
    silent = {f"p{n}": [answer(reasoning="")] * 2 for n in range(0, 200, 20)}
    assert len(ask(FakeTeacher(steps=silent), 200, tmp_path).finals) == 200


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("count", [1, 2, 60, 1000])
def test_answers_with_a_finish_that_nobody_knows_stop_the_run_and_are_kept_until_somebody_says_it(
    count: int, tmp_path: Path
) -> None:
    teacher = FakeTeacher(chance=lambda call: answer(finish="fertig"), latency_s=lambda: 1)
    error = stopped(10, teacher, count, tmp_path, concurrency=8)
    assert "'fertig'" in error.problem
    assert "teacher.finishes" in error.fix
    assert len(teacher.calls) <= 11 + 8
    stopped(10, again := FakeTeacher(), count, tmp_path)
    assert not again.calls, "no more is paid before somebody said it"
    told = FakeTeacher(latency_s=lambda: 1)
    told.read = lambda said: replace(read_chat(said), finish="stop")  # type: ignore[method-assign]
    assert len(ask(told, count, tmp_path).finals) == count
    assert len(told.calls) == count - len(teacher.calls)


@pytest.mark.usefixtures("clock")
def test_a_few_finishes_that_nobody_knows_are_told_and_no_reason_to_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = FakeTeacher(steps={f"p{n}": [answer(finish="fertig")] for n in range(0, 60, 9)})
    assert len(ask(teacher, 60, tmp_path).finals) == 60
    assert (
        "7 of 60 answers ended with a finish reason that nobody knows: 'fertig' 7" in capsys.readouterr().err
    )


@pytest.mark.dear
@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("latency_s", [0.1, 30.0])
@pytest.mark.parametrize(
    "step",
    [
        refusal(500),
        refusal(503),
        refusal(429),
        refusal(429, "now!", retry_after=0),
    ],
    ids=str,
)
def test_an_outage_is_probed_and_then_stops_the_run(
    step: Step, latency_s: float, tmp_path: Path, clock: Clock
) -> None:
    start = clock.now
    teacher = FakeTeacher(chance=lambda call: step, latency_s=lambda: latency_s)
    error = stopped(9, teacher, 500, tmp_path, deadline_s=300)
    assert PATIENCE_S < clock.now - start < PATIENCE_S + 100
    assert len(teacher.calls) < 150, "it probes, and does not hammer"
    assert str(step) in str(error)
    whole(tmp_path)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("latency_s", [0.1, 20.0])
def test_an_address_where_nobody_ever_answered_stops_the_run_soon(
    latency_s: float, tmp_path: Path, clock: Clock
) -> None:
    start = clock.now
    teacher = FakeTeacher(chance=lambda call: broken("no route", billed=False), latency_s=lambda: latency_s)
    error = stopped(9, teacher, 500, tmp_path, deadline_s=300)
    assert UNREACHED_S < clock.now - start < UNREACHED_S + 60
    assert "no route" in str(error)
    whole(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
def test_an_outage_in_the_middle_that_passes_is_waited_for(tmp_path: Path, clock: Clock) -> None:
    start = clock.now
    gone = broken("connection refused", billed=False)
    teacher = FakeTeacher(chance=lambda call: gone if 20 < clock.now - start < 80 else None)
    teacher.latency_s = lambda: 1.0
    assert len(ask(teacher, 1500, tmp_path, deadline_s=300).finals) == 1500
    assert len(teacher.calls) < 1500 + 150


@pytest.mark.usefixtures("clock")
def test_ctrl_c_waits_for_the_calls_in_flight(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    teacher = FakeTeacher(latency_s=lambda: 2)

    def watch(collector: Collector) -> None:
        if collector.tally.done == 32:
            signal.raise_signal(signal.SIGINT) if not collector.stopped else None

    error = stopped(130, teacher, 500, tmp_path, watch=watch)
    assert "Ctrl-C" in error.problem
    assert len(read_paid(tmp_path).finals) == len(teacher.calls) < 500
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    whole(tmp_path)
    ask(again := FakeTeacher(), 500, tmp_path)
    assert len(again.calls) == 500 - len(teacher.calls)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("signals", [(signal.SIGINT,) * 2, (signal.SIGHUP, signal.SIGTERM)])
def test_asked_twice_it_gives_up_what_is_in_flight_and_says_what_that_may_cost(
    signals: tuple[signal.Signals, ...], tmp_path: Path, clock: Clock
) -> None:
    left, seen = [*signals], []

    def watch(collector: Collector) -> None:
        if collector.tally.done >= 20 and left:
            signal.raise_signal(left.pop(0))
        seen.append(clock.now)

    teacher = FakeTeacher(latency_s=iter([1.0] * 20 + [900.0] * 99).__next__)
    error = stopped(130, teacher, 100, tmp_path, watch=watch, concurrency=16)
    paid = read_paid(tmp_path)
    assert len(paid.finals) == 20
    assert len(paid.flying) == len(teacher.calls) - 20 == 16
    assert "16 calls in flight were given up" in error.problem
    assert f"{sum(paid.flying.values())} USD at most" in error.problem
    assert seen[-1] < 1010, "it does not wait"
    for number in (signal.SIGHUP, signal.SIGTERM):
        assert signal.getsignal(number) is signal.SIG_DFL
    assert len(ask(FakeTeacher(), 100, tmp_path).finals) == 100


@pytest.mark.usefixtures("clock")
def test_sighup_waits_for_what_is_in_flight_and_is_nothing_under_nohup(tmp_path: Path) -> None:
    def watch(collector: Collector) -> None:
        if collector.tally.done == 8 and not collector.stopped:
            signal.raise_signal(signal.SIGHUP)

    error = stopped(130, FakeTeacher(latency_s=lambda: 1), 100, tmp_path, watch=watch, concurrency=8)
    assert "SIGHUP" in error.problem
    assert not read_paid(tmp_path).flying
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        ask(FakeTeacher(latency_s=lambda: 1), 100, tmp_path / "nohup", watch=watch, concurrency=8)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("clock")
def test_dvc_s_death_is_a_reason_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stopping, "reason", "dvc is gone")
    error = stopped(130, teacher := FakeTeacher(), 5, tmp_path)
    assert "dvc is gone" in str(error)
    assert not teacher.calls


@pytest.mark.usefixtures("clock")
def test_a_bug_in_a_plugin_surfaces_once_the_calls_in_flight_are_over(tmp_path: Path) -> None:
    teacher = FakeTeacher(
        latency_s=iter([5.0] * 5 + [1.0] + [5.0] * 90).__next__, steps={"p5": [ValueError("mine")]}
    )
    with pytest.raises(ValueError, match="mine"):
        ask(teacher, 50, tmp_path)
    paid = read_paid(tmp_path)
    assert len(paid.finals) == len(teacher.calls) - 1
    assert len(paid.flying) == 1, "what it cost, nobody knows"
    assert teacher.billed <= paid.spent + paid.possibly
    ask(again := FakeTeacher(), 50, tmp_path)
    assert len(again.calls) == 50 - len(paid.finals)


@pytest.mark.usefixtures("clock")
def test_a_socket_error_of_a_plugin_is_not_laid_at_the_journal_s_door(tmp_path: Path) -> None:
    teacher = FakeTeacher(latency_s=lambda: 1, steps={"p5": [ConnectionResetError(104, "by peer")]})
    with pytest.raises(ConnectionResetError, match="by peer"):
        ask(teacher, 20, tmp_path)
    assert len(read_paid(tmp_path).finals) == len(teacher.calls) - 1


@pytest.mark.usefixtures("clock")
def test_an_answer_that_the_plugin_cannot_read_is_kept_all_the_same(tmp_path: Path) -> None:
    odd = {"model": "toy-1", "output": "42"}
    teacher = FakeTeacher(steps={"p5": [odd]}, prices=None)
    with pytest.raises(KeyError, match="choices"):
        ask(teacher, 20, tmp_path)
    (failed,) = lines(tmp_path, "failed")
    assert failed["partial"] == odd
    assert failed["message"] == "teacher.read raised KeyError('choices')"
    assert read_paid(tmp_path).broken == 1
    whole(tmp_path)


def test_a_full_disk_stops_the_run_and_leaves_a_whole_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(FakeTeacher(), 10, tmp_path)
    fsync, calls = os.fsync, iter(range(1000))

    def full(file: int) -> None:
        if next(calls) >= 2:
            raise OSError(28, "No space left on device")
        fsync(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ChainForgeError, match="No space left"):
        ask(FakeTeacher(), 40, tmp_path)
    assert len(read_paid(tmp_path).finals) >= 10
    monkeypatch.setattr(os, "fsync", fsync)
    assert len(ask(FakeTeacher(), 40, tmp_path).finals) == 40
