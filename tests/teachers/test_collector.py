"""The collector: everything asked is answered, or left without an answer after its tries."""

import random
from pathlib import Path

import pytest
from fake_api import HANGS, RECOVERABLE, FakeTeacher, Step, answer, ask, broken, lines, refusal, whole
from virtual_time import Clock

from chainforge.providers.calls import Call
from chainforge.teachers.collector import Collector
from chainforge.teachers.paid import Paid


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


@pytest.mark.dear
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


@pytest.mark.slow
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


@pytest.mark.dear
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("concurrency", "latency_s"), [(64, 1.0), (200, 4.0)])
@pytest.mark.parametrize("retry_after", [None, 1.0])
@pytest.mark.parametrize(("stray", "fraction"), [(0.0, 0.94), (0.01, 0.85)])
def test_the_concurrency_that_is_allowed_is_used_although_a_few_calls_are_refused(
    concurrency: int,
    latency_s: float,
    stray: float,
    fraction: float,
    retry_after: float | None,
    tmp_path: Path,
    clock: Clock,
) -> None:
    dice, start, rounds = random.Random(7), clock.now, 20
    refused = [refusal(429, "by chance", retry_after)]

    def chance(call: Call) -> Step | None:
        return refused[0] if dice.random() < stray else None

    teacher = FakeTeacher(chance=chance, latency_s=lambda: dice.uniform(0.9, 1.1) * latency_s)
    asked = rounds * concurrency
    assert len(ask(teacher, asked, tmp_path, concurrency=concurrency).finals) == asked
    assert asked * latency_s / concurrency / (clock.now - start) >= fraction


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
