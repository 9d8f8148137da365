"""The collector: everything asked is answered or said why not, nothing paid is lost, no budget passed."""

import os
import random
import signal
from collections import Counter
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fake_api import CHEAP, HANGS, FakeTeacher, Step, answer, ask, broken, lines, made, prompts, refusal
from virtual_time import Clock

from chainforge.calls import Call, Usage
from chainforge.chat import read_chat
from chainforge.errors import ChainForgeError
from chainforge.prices import Prices, Window
from chainforge.run.stopping import Stopping
from chainforge.teachers import answers, journal
from chainforge.teachers.collector import Collector
from chainforge.teachers.journal import append
from chainforge.teachers.paid import Paid, read_paid
from chainforge.teachers.stops import PATIENCE_S, UNREACHED_S, CollectionStopped

RECOVERABLE: dict[str, Step] = {
    "408": refusal(408),
    "409": refusal(409),
    "429": refusal(429),
    "429 that says when": refusal(429, retry_after=3),
    "500": refusal(500),
    "502": refusal(502, "<html>"),
    "503": refusal(503),
    "reset": broken(),
    "no connection": broken(billed=False),
    "cut stream": broken("it was cut", choices=[]),
    "overloaded": answer("4", finish="insufficient_system_resource"),
    "no reasoning": answer(reasoning=""),
    "no content": answer(content=None),
    "hangs": HANGS,
}


def stopped(code: int, *arguments: Any, **settings: Any) -> CollectionStopped:
    """The collection must stop with this exit code."""
    with pytest.raises(CollectionStopped) as caught:
        ask(*arguments, **settings)
    assert caught.value.exit_code == code
    return caught.value


def whole(folder: Path) -> None:
    """Every call of a journal has its end, and only one."""
    ends = Counter(
        (r["fingerprint"], r["attempt"]) for r in lines(folder) if r["kind"] in ("answer", "failed")
    )
    assert ends == Counter((r["fingerprint"], r["attempt"]) for r in lines(folder, "sent"))
    assert set(ends.values()) <= {1}
    assert read_paid(folder).flying == {}


@pytest.mark.usefixtures("clock")
def test_every_question_is_answered_with_one_request(tmp_path: Path) -> None:
    teacher = FakeTeacher(latency_s=lambda: 2)
    paid = ask(teacher, 100, tmp_path, samples=2)
    assert len(paid.finals) == len(teacher.calls) == 200
    assert paid.spent == teacher.billed
    assert paid.possibly == 0
    whole(tmp_path)


def test_it_runs_by_the_real_clock_too(tmp_path: Path) -> None:
    teacher = FakeTeacher(
        latency_s=lambda: random.uniform(0, 0.002), steps={"p3": [refusal(500)], "p5": [broken()]}
    )
    paid = ask(teacher, 100, tmp_path, base_s=0.001)
    assert len(paid.finals) == 100
    assert len(teacher.calls) == 102
    whole(tmp_path)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("fault", RECOVERABLE)
def test_a_fault_that_passes_costs_one_more_request(fault: str, tmp_path: Path) -> None:
    teacher = FakeTeacher(latency_s=lambda: 1, steps={f"p{n}": [RECOVERABLE[fault]] for n in range(0, 20, 3)})
    paid = ask(teacher, 20, tmp_path, deadline_s=30)
    assert len(paid.finals) == 20
    assert len(teacher.calls) == 27
    assert teacher.billed <= paid.spent + paid.possibly
    whole(tmp_path)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("seed", range(5))
def test_faults_of_all_kinds_at_once_cost_one_more_request_each(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    steps = {f"p{n}": [chance.choice([*RECOVERABLE.values()]) for _ in range(n % 2)] for n in range(100)}
    teacher = FakeTeacher(latency_s=lambda: chance.uniform(0, 4), steps=steps)
    paid = ask(teacher, 100, tmp_path, deadline_s=60)
    assert len(paid.finals) == 100
    assert len(teacher.calls) == 150
    assert teacher.billed <= paid.spent + paid.possibly
    whole(tmp_path)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("status", "fewer"), [(429, True), (503, True), (529, True), (500, False)])
def test_a_provider_that_says_it_is_overloaded_gets_fewer_calls(
    status: int, fewer: bool, tmp_path: Path
) -> None:
    limits: list[float] = []
    teacher = FakeTeacher(latency_s=lambda: 2, steps={"p9": [refusal(status)]})
    ask(teacher, 100, tmp_path, concurrency=16, watch=lambda c: limits.append(c.limit.value))
    assert (min(limits) < 16) == fewer


@pytest.mark.usefixtures("clock")
def test_too_many_requests_of_everybody_cost_no_try(tmp_path: Path) -> None:
    teacher = FakeTeacher(latency_s=lambda: 1, steps={"p0": [refusal(429)] * 15 + [refusal(500)] * 6})
    assert len(ask(teacher, 1, tmp_path).finals) == 1
    assert teacher.asked["p0/0"] == 22


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("count", [3, 40, 2000])
@pytest.mark.parametrize("retry_after", [None, 0, 5])
def test_a_question_that_always_has_to_wait_does_not_hold_the_others(
    count: int, retry_after: float | None, tmp_path: Path, clock: Clock
) -> None:
    start, busy = clock.now, refusal(429, "not this one", retry_after)
    teacher = FakeTeacher(latency_s=lambda: 1, steps={"p1": [busy] * 999})
    paid = ask(teacher, count, tmp_path, concurrency=8)
    assert len(paid.finals) == count - 1
    assert clock.now - start < count / 8 + 300
    assert teacher.asked["p1/0"] < 30
    assert [*paid.unanswered.values()] == [("busy", str(busy))]
    ask(again := FakeTeacher(), count, tmp_path)
    assert again.asked == {"p1/0": 1}, "the next run asks it"


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("retry_after", [0, 0.001])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_come_back_at_once_is_not_taken_at_its_word(
    status: int, retry_after: float, tmp_path: Path, clock: Clock
) -> None:
    start = clock.now

    def chance(call: Call) -> Step | None:
        return refusal(status, "now!", retry_after) if clock.now - start < 12 else None

    teacher = FakeTeacher(chance=chance, latency_s=lambda: 0.01)
    assert len(ask(teacher, 4, tmp_path).finals) == 4
    assert len(teacher.calls) < 60


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("step", "tries", "cause"),
    [
        (refusal(500), 6, "failed"),
        (broken(), 6, "failed"),
        (broken("it was cut", choices=[]), 3, "cut"),
        (HANGS, 2, "deadline"),
        (refusal(422), 0, "refused"),
        (refusal(400, "bad request"), 0, "refused"),
    ],
)
def test_after_its_tries_a_question_is_left_without_an_answer(
    step: Step, tries: int, cause: str, tmp_path: Path
) -> None:
    teacher = FakeTeacher(latency_s=lambda: 1, steps={"p0": [step] * 99})
    paid = ask(teacher, 40, tmp_path, deadline_s=100, concurrency=4)
    assert len(paid.finals) == 39
    assert teacher.asked["p0/0"] == tries + 1
    ends = lines(tmp_path, "failed")
    assert [(end["cause"], end["final"]) for end in ends] == [(cause, n == tries) for n in range(tries + 1)]
    whole(tmp_path)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("deadline_s", [100.0, 1800.0])
@pytest.mark.parametrize("last", [HANGS, broken(), refusal(500)], ids=str)
def test_the_last_question_may_go_without_an_answer_like_any_other(
    last: Step, deadline_s: float, tmp_path: Path
) -> None:
    teacher = FakeTeacher(latency_s=lambda: 1, steps={"p0": [last] * 99})
    assert len(ask(teacher, 2, tmp_path, deadline_s=deadline_s).finals) == 1
    assert teacher.asked["p0/0"] == (3 if last == HANGS else 7)
    assert len(ask(teacher, 2, tmp_path, deadline_s=deadline_s).finals) == 1


@pytest.mark.usefixtures("clock")
def test_a_run_in_which_every_question_fails_is_not_called_done(tmp_path: Path) -> None:
    with pytest.raises(CollectionStopped, match="the first 2 questions all failed") as stopped:
        ask(FakeTeacher(steps={f"p{n}": [refusal(500)] * 99 for n in range(2)}), 2, tmp_path)
    assert stopped.value.exit_code == 9


@pytest.mark.usefixtures("clock")
def test_an_answer_out_of_time_is_possibly_paid(tmp_path: Path) -> None:
    teacher = FakeTeacher(steps={"p0": [HANGS]})
    paid = ask(teacher, 2, tmp_path, deadline_s=30, base_s=0.1)
    assert len(paid.finals) == 2
    assert paid.broken == 1
    assert paid.possibly == Decimal(lines(tmp_path, "sent")[0]["most_usd"]) > 0
    (failed,) = lines(tmp_path, "failed")
    assert failed["message"] == "no answer within 30 s"


@pytest.mark.usefixtures("clock")
def test_a_provider_that_asks_for_hours_is_asked_again_after_two_minutes(
    tmp_path: Path, clock: Clock
) -> None:
    start = clock.now
    ask(FakeTeacher(steps={"p0": [refusal(429, retry_after=9999)]}), 1, tmp_path)
    assert 120 <= clock.now - start < 130


@pytest.mark.usefixtures("clock")
def test_an_answer_without_reasoning_is_kept_when_the_next_one_is_no_better(tmp_path: Path) -> None:
    teacher = FakeTeacher(steps={"p0": [answer("first", reasoning="")] * 2})
    assert len(ask(teacher, 5, tmp_path).finals) == 5
    assert teacher.asked["p0/0"] == 2
    assert [a["final"] for a in lines(tmp_path, "answer") if a["cause"] == "no_reasoning"] == [False, True]


@pytest.mark.usefixtures("clock")
def test_where_no_thinking_was_asked_for_an_answer_without_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = FakeTeacher(thinks=False, chance=lambda call: answer(reasoning=""))
    paid = ask(teacher, 100, tmp_path)
    assert len(paid.finals) == len(teacher.calls) == 100
    assert "the step filter drops every answer without reasoning" in capsys.readouterr().err
    ask(FakeTeacher(), 1, tmp_path / "thinking")
    assert "reasoning" not in capsys.readouterr().err


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("retry", [True, False])
def test_a_truncated_answer_is_asked_for_once_more_with_twice_the_tokens_if_at_all(
    retry: bool, tmp_path: Path
) -> None:
    cut = answer("", finish="length")
    teacher = FakeTeacher(steps={"p0": [cut] * 5, "p1": [cut]})
    paid = ask(teacher, 3, tmp_path, retry_truncated=retry)
    assert len(paid.finals) == 3
    asked = {n: [c.max_tokens for c in teacher.calls if f"/p{n}/" in c.label] for n in range(3)}
    assert asked == ({0: [100, 200], 1: [100, 200], 2: [100]} if retry else {n: [100] for n in range(3)})


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


@pytest.mark.usefixtures("clock")
def test_an_outage_in_the_middle_that_passes_is_waited_for(tmp_path: Path, clock: Clock) -> None:
    start = clock.now
    gone = broken("connection refused", billed=False)
    teacher = FakeTeacher(chance=lambda call: gone if 20 < clock.now - start < 80 else None)
    teacher.latency_s = lambda: 1.0
    assert len(ask(teacher, 1500, tmp_path, deadline_s=300).finals) == 1500
    assert len(teacher.calls) < 1500 + 150


@pytest.mark.usefixtures("clock")
def test_a_provider_that_takes_forty_at_a_time_gets_forty(tmp_path: Path) -> None:
    teacher = FakeTeacher(latency_s=lambda: 2, cap=40)
    seen: list[tuple[int, int, int]] = []

    def watch(collector: Collector) -> None:
        seen.append((collector.tally.requests, teacher.refused, teacher.flying))

    assert len(ask(teacher, 2400, tmp_path, concurrency=256, watch=watch).finals) == 2400
    later = [s for s in seen if 600 <= s[0] <= 2300]
    assert (later[-1][1] - later[0][1]) / (later[-1][0] - later[0][0]) <= 0.05
    assert sum(s[2] for s in later) / len(later) >= 0.8 * 40


@pytest.mark.usefixtures("clock")
def test_without_refusals_all_that_is_allowed_is_in_flight_within_five_seconds(
    tmp_path: Path, clock: Clock
) -> None:
    start = clock.now
    teacher = FakeTeacher(latency_s=lambda: 20)
    reached: list[float] = []

    def watch(collector: Collector) -> None:
        if len(collector.flying) == 256:
            reached.append(clock.now - start)

    ask(teacher, 600, tmp_path, concurrency=256, watch=watch)
    assert reached[0] <= 5
    assert teacher.most_flying == 256


@pytest.mark.usefixtures("clock")
def test_the_same_question_twice_is_asked_once(tmp_path: Path) -> None:
    teacher = FakeTeacher()
    twins = [*prompts(2), *(type(p)("twin", p.source, p.messages) for p in prompts(1))]
    paid = ask(teacher, twins, tmp_path, samples=2)
    assert len(teacher.calls) == 4
    assert len(made(teacher, twins, 2)) == 6
    assert all(question.fingerprint in paid.finals for question in made(teacher, twins, 2))


@pytest.mark.usefixtures("clock")
def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    first = FakeTeacher(steps={f"p{n}": [refusal(402)] * 2 for n in range(30, 80)})
    stopped(4, first, 80, tmp_path, concurrency=4)
    done = len(read_paid(tmp_path).finals)
    assert 0 < done < 80
    ask(second := FakeTeacher(), 80, tmp_path)
    assert len(second.calls) == 80 - done
    before = (tmp_path / "journal.jsonl").read_bytes()
    assert ask(third := FakeTeacher(), 80, tmp_path).spent == first.billed + second.billed
    assert third.calls == []
    assert (tmp_path / "journal.jsonl").read_bytes() == before


@pytest.mark.usefixtures("clock")
def test_more_samples_cost_what_they_add(tmp_path: Path) -> None:
    ask(FakeTeacher(), 5, tmp_path, samples=4)
    ask(teacher := FakeTeacher(), 5, tmp_path, samples=8)
    assert teacher.asked == {f"p{n}/{sample}": 1 for n in range(5) for sample in range(4, 8)}


@pytest.mark.usefixtures("clock")
def test_a_call_in_flight_at_a_kill_counts_as_possibly_paid_and_is_asked_again(tmp_path: Path) -> None:
    ask(FakeTeacher(), 3, tmp_path)
    journal = tmp_path / "journal.jsonl"
    kept = journal.read_text().splitlines(keepends=True)
    ends = [n for n, record in enumerate(lines(tmp_path)) if record["kind"] == "answer"]
    journal.write_text("".join(line for n, line in enumerate(kept) if n not in ends[:2]))
    lost = read_paid(tmp_path).possibly
    assert lost > 0
    paid = read_paid(tmp_path)
    stopped(6, none := FakeTeacher(), 3, tmp_path, budget_usd=float(paid.spent + lost))
    assert none.calls == [], "it counts into the budget"
    ask(teacher := FakeTeacher(), 3, tmp_path)
    assert len(teacher.calls) == 2
    assert {call.label.split("/")[-1] for call in teacher.calls} == {"1"}
    assert read_paid(tmp_path).possibly == lost
    assert len(read_paid(tmp_path).finals) == 3


@pytest.mark.usefixtures("clock")
def test_answers_of_another_journal_are_taken_and_not_paid(tmp_path: Path) -> None:
    ask(FakeTeacher(), 10, tmp_path / "old")
    paid = ask(teacher := FakeTeacher(), 15, tmp_path / "new", reuse=[str(tmp_path / "old")])
    assert len(teacher.calls) == 5
    assert len(paid.finals) == 15
    assert paid.spent == teacher.billed
    assert sum(bool(a.get("reused")) for a in lines(tmp_path / "new", "answer")) == 10


@pytest.mark.usefixtures("clock")
def test_reuse_forgets_no_money(tmp_path: Path) -> None:
    ask(FakeTeacher(), 1, tmp_path / "old")
    ask(FakeTeacher(), 1, tmp_path / "new")
    journal = tmp_path / "new/journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))  # killed in flight
    lost = read_paid(tmp_path / "new").possibly
    paid = ask(teacher := FakeTeacher(), 1, tmp_path / "new", reuse=[str(tmp_path / "old")])
    assert not teacher.calls
    assert paid.possibly == lost > 0


@pytest.mark.usefixtures("clock")
def test_a_folder_to_reuse_that_has_no_journal_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ChainForgeError, match=r"there is no journal in .*typo"):
        ask(FakeTeacher(), 1, tmp_path / "new", reuse=[str(tmp_path / "typo")])


@pytest.mark.usefixtures("clock")
def test_a_folder_to_reuse_is_not_looked_for_when_all_is_answered(tmp_path: Path) -> None:
    ask(FakeTeacher(), 5, tmp_path / "old")
    ask(FakeTeacher(), 5, tmp_path / "new", reuse=[str(tmp_path / "old")])
    (tmp_path / "old/journal.jsonl").unlink()
    gone = [str(tmp_path / "old"), str(tmp_path / "typo")]
    assert len(ask(FakeTeacher(), 5, tmp_path / "new", reuse=gone).finals) == 5
    with pytest.raises(ChainForgeError, match="there is no journal in"):
        ask(FakeTeacher(), 6, tmp_path / "new", reuse=gone)


@pytest.mark.usefixtures("clock")
def test_answers_to_reuse_are_copied_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(FakeTeacher(), 50, tmp_path / "old")
    written: list[int] = []

    def watched(file: int, data: bytes) -> None:
        written.append(data.count(b"\n"))
        append(file, data)

    monkeypatch.setattr(answers, "COPIED_AT_ONCE", 7)
    monkeypatch.setattr(journal, "append", watched)
    assert len(ask(FakeTeacher(), 50, tmp_path / "new", reuse=[str(tmp_path / "old")]).finals) == 50
    assert max(written) <= 7
    copied = [a["fingerprint"] for a in lines(tmp_path / "new", "answer")]
    assert sorted(copied) == sorted(a["fingerprint"] for a in lines(tmp_path / "old", "answer"))


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("prices", "budget", "said"),
    [(CHEAP, None, "set collector.budget_usd"), (None, 5.0, "set teacher.usd_per_million")],
)
def test_without_a_budget_that_can_be_kept_nothing_is_asked(
    prices: Prices | None, budget: float | None, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ChainForgeError, match=said):
        ask(teacher := FakeTeacher(prices=prices), 1, tmp_path, budget_usd=budget)
    assert not teacher.calls
    assert not (tmp_path / "journal.jsonl").exists()


@pytest.mark.usefixtures("clock")
def test_a_budget_is_never_passed_and_almost_used_up(tmp_path: Path) -> None:
    dice = random.Random(17)
    for run in range(200):
        folder = tmp_path / str(run)
        faults = [*[None] * 20, *RECOVERABLE.values()]
        teacher = FakeTeacher(
            latency_s=lambda: dice.uniform(0, 0.005),
            chance=lambda call, faults=faults: dice.choice(faults) or answer(output=dice.randint(0, 100)),
        )
        budget = dice.choice([0.0, 0.0005, 0.001, 0.0015, 0.002])
        most = max(CHEAP.most(q.messages, 100) for q in made(teacher, 20))
        for _ in range(2):  # the second time from what the journal says
            error = stopped(6, teacher, 20, folder, budget_usd=budget, concurrency=8, deadline_s=5)
            paid = read_paid(folder)
            assert teacher.billed <= paid.spent + paid.possibly <= Decimal(str(budget))
            assert paid.spent + paid.possibly + 2 * most > Decimal(str(budget))
            assert f"the budget of {budget} USD is used up" in str(error)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0}])
def test_where_the_usage_cannot_be_true_the_most_counts_as_possibly_paid(
    usage: object, tmp_path: Path
) -> None:
    teacher = FakeTeacher(chance=lambda call: answer() | {"usage": usage})
    paid = ask(teacher, 3, tmp_path)
    most = sum(Decimal(sent["most_usd"]) for sent in lines(tmp_path, "sent"))
    assert (len(paid.finals), len(teacher.calls)) == (3, 3), "it is an answer all the same"
    assert (paid.spent, paid.possibly) == (0, most)
    assert ask(FakeTeacher(), 3, tmp_path).possibly == most


@pytest.mark.usefixtures("clock")
def test_a_server_that_lies_about_usage_is_not_paid_more_than_the_budget(tmp_path: Path) -> None:
    dice = random.Random(5)
    for run in range(100):
        billed = [Decimal(0)]

        def chance(call: Call, billed: list[Decimal] = billed) -> Step:
            tokens = dice.randint(1, 100)
            billed[0] += CHEAP.cost(Usage(0, 10, tokens), "peak")
            text = "".join(dice.choice("abcdefghij ") for _ in range(4 * tokens))
            said = dice.choice([tokens, tokens, 0, 1])
            usage: dict[str, Any] = {"prompt_tokens": 10, "completion_tokens": said}
            if said == 1:  # the reasoning is not among them
                usage["completion_tokens_details"] = {"reasoning_tokens": tokens}
            return answer(text, reasoning=text) | {"usage": usage}

        budget = dice.choice([0.001, 0.002, 0.005])
        teacher = FakeTeacher(chance=chance, latency_s=lambda: dice.uniform(0, 1))
        stopped(6, teacher, 60, tmp_path / str(run), budget_usd=budget, concurrency=8)
        assert billed[0] <= Decimal(str(budget))


@pytest.mark.usefixtures("clock")
def test_a_budget_for_one_call_at_a_time_still_gets_everything_asked(tmp_path: Path) -> None:
    teacher = FakeTeacher(latency_s=lambda: 1)
    most = max(CHEAP.most(q.messages, 100) for q in made(teacher, 20))
    answers = 20 * CHEAP.cost(teacher.read(answer()).usage, "off-peak")
    waited: set[str] = set()
    ask(
        teacher,
        20,
        tmp_path,
        budget_usd=float(answers + most),
        watch=lambda c: waited.add(c.tally.waiting_for),
    )
    assert read_paid(tmp_path).spent == answers
    assert "the budget: the calls in flight may use it up" in waited


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


@pytest.mark.usefixtures("clock")
def test_off_peak_only_waits_while_the_higher_price_is_on(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, sent, waited = clock.now, [], set()

    def window(self: Prices, at: datetime) -> Window:
        return "peak" if 3 <= clock.now - start < 1200 else "off-peak"

    def chance(call: Call) -> None:
        sent.append(clock.now - start)

    monkeypatch.setattr(Prices, "window", window)
    teacher = FakeTeacher(latency_s=lambda: 2, chance=chance)
    paid = ask(
        teacher,
        200,
        tmp_path,
        concurrency=16,
        off_peak_only=True,
        watch=lambda c: waited.add(c.tally.waiting_for),
    )
    assert len(paid.finals) == 200
    assert not any(3.2 < at < 1200 for at in sent)
    assert max(sent) > 1200
    assert waited == {"", "off-peak hours"}


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


@pytest.mark.usefixtures("clock")
def test_a_stream_is_asked_for_where_it_is_wanted_and_counted(tmp_path: Path) -> None:
    def chance(call: Call) -> None:
        assert call.on_text
        call.on_text(7)

    seen: list[int] = []
    ask(
        FakeTeacher(chance=chance, latency_s=lambda: 1),
        5,
        tmp_path,
        stream=True,
        watch=lambda c: seen.append(c.tally.characters),
    )
    assert max(seen) == 35
    ask(teacher := FakeTeacher(), 5, tmp_path / "whole")
    assert all(call.on_text is None for call in teacher.calls)


def test_nothing_to_ask_connects_to_nobody(tmp_path: Path) -> None:
    assert ask(FakeTeacher(), 0, tmp_path) == Paid()
