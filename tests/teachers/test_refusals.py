"""Who is refused: one question, which is then skipped and named, or everybody, which stops the run."""

import random
from collections import Counter
from pathlib import Path

import pytest
from fake_api import FakeTeacher, ask, lines, made, refusal
from virtual_time import Clock

from chainforge.providers.calls import Call, CallFailed
from chainforge.teachers.paid import read_paid
from chainforge.teachers.stops import CollectionStopped
from chainforge.teachers.unanswered import describe_unanswered

pytestmark = pytest.mark.usefixtures("clock")

REFUSALS = {
    "400": refusal(400, "content flagged"),
    "401": refusal(401),
    "402": refusal(402),
    "403": refusal(403, "input flagged"),
    "404": refusal(404),
    "no model": refusal(400, "the model does not exist for this input"),
    "413": refusal(413),
    "422": refusal(422),
    "451": refusal(451),
}
each = pytest.mark.parametrize("said", REFUSALS)
CODES = {"401": 3, "402": 4, "403": 3, "404": 5, "no model": 5}


def refusing(said: str, ids: set[int], latency_s: float = 2.0) -> FakeTeacher:
    """One that always refuses these, within no time, and answers the others."""
    delays: list[float] = [latency_s]

    def chance(call: Call) -> CallFailed | None:
        odd = int(call.label.split("/")[1][1:]) in ids
        delays[0] = 0.05 if odd else random.uniform(0.5, 1.5) * latency_s
        return REFUSALS[said] if odd else None

    return FakeTeacher(chance=chance, latency_s=lambda: delays[0])


WHERE = {"anywhere": set(random.Random(3).sample(range(1, 600), 18)), "last": {*range(582, 600)}}
WHERE["first"] = {*range(18)}
# As many refusals in a row as come at an end, with 401 or 402, are about the account.
PLACES = [(s, where) for s in REFUSALS for where in WHERE if s not in ("401", "402") or where == "anywhere"]


@pytest.mark.dear
@pytest.mark.parametrize(
    "concurrency",
    [64, pytest.param(200, marks=pytest.mark.long), pytest.param(1, marks=pytest.mark.long)],
)
@pytest.mark.parametrize(("said", "where"), PLACES)
def test_a_few_that_are_always_refused_leave_all_others_answered_in_one_run(
    said: str, concurrency: int, where: str, tmp_path: Path
) -> None:
    odd = WHERE[where]
    paid = ask(refusing(said, odd), 600, tmp_path, concurrency=concurrency)
    assert len(paid.finals) == 582
    assert {cause for cause, _ in paid.unanswered.values()} == {"refused"}
    assert len(paid.unanswered) == 18
    before = (tmp_path / "journal.jsonl").read_bytes()
    ask(nobody := FakeTeacher(), 600, tmp_path)
    assert not nobody.calls
    assert (tmp_path / "journal.jsonl").read_bytes() == before
    paid = ask(again := FakeTeacher(), 600, tmp_path, retry_refused=True)
    assert len(again.calls) == 18
    assert len(paid.finals) == 600
    assert not paid.unanswered


@each
def test_the_refused_ones_are_named_with_what_the_provider_said(said: str, tmp_path: Path) -> None:
    teacher = refusing(said, {7, 33})
    paid = ask(teacher, 60, tmp_path, concurrency=4)
    head, reason = describe_unanswered(made(teacher, 60), paid)
    assert head.startswith("2 of 60 questions were refused")
    assert "--retry-refused" in head
    assert reason == f"  {REFUSALS[said]}: p7, p33"


@pytest.mark.dear
@pytest.mark.parametrize("said", CODES)
def test_a_refusal_that_passes_costs_one_more_call_at_the_end(said: str, tmp_path: Path) -> None:
    teacher = FakeTeacher(latency_s=lambda: 2, steps={"p9": [REFUSALS[said]], "p20": [REFUSALS[said]]})
    assert len(ask(teacher, 100, tmp_path).finals) == 100
    assert len(teacher.calls) == 102
    assert {call.label.split("/")[1] for call in teacher.calls[-2:]} == {"p9", "p20"}


@pytest.mark.dear
@each
@pytest.mark.parametrize("concurrency", [1, 64])
@pytest.mark.parametrize("total", [1, 3, 500])
def test_what_everybody_is_refused_for_stops_the_run_before_many_calls(
    said: str, concurrency: int, total: int, tmp_path: Path
) -> None:
    teacher = refusing(said, {*range(500)})
    with pytest.raises(CollectionStopped) as stop:
        ask(teacher, total, tmp_path, concurrency=concurrency)
    assert stop.value.exit_code == CODES.get(said, 7)
    assert str(REFUSALS[said]) in stop.value.problem
    assert len(teacher.calls) <= min(2 * total, 5 if concurrency == 1 else 40)
    ask(good := FakeTeacher(), total, tmp_path)
    assert good.asked == {f"p{n}/0": 1 for n in range(total)}, "refused to everybody is not refused for good"


@pytest.mark.dear
@each
def test_nobody_is_said_to_be_refused_while_calls_are_in_flight(said: str, tmp_path: Path) -> None:
    teacher = refusing(said, {*range(15)}, latency_s=20)
    paid = ask(teacher, 60, tmp_path, concurrency=16)
    assert len(paid.finals) == 45


def test_what_was_refused_before_anybody_was_answered_is_asked_last(tmp_path: Path) -> None:
    with pytest.raises(CollectionStopped):
        ask(refusing("422", {*range(600)}), 600, tmp_path, concurrency=4)
    refused = [record["prompt_id"] for record in lines(tmp_path, "failed")]
    ask(teacher := FakeTeacher(latency_s=lambda: 1), 600, tmp_path, concurrency=4)
    assert {call.label.split("/")[1] for call in teacher.calls[-len(refused) :]} == {*refused}
    assert len(teacher.calls) == 600


def test_a_key_that_is_revoked_when_few_are_left_stops_the_run(tmp_path: Path, clock: Clock) -> None:
    start = clock.now
    teacher = FakeTeacher(latency_s=lambda: 2)
    teacher.chance = lambda call: REFUSALS["401"] if clock.now - start > 9.9 else None
    with pytest.raises(CollectionStopped) as stop:
        ask(teacher, 82, tmp_path, concurrency=16)
    assert stop.value.exit_code == 3
    assert not read_paid(tmp_path).unanswered
    ask(good := FakeTeacher(), 82, tmp_path)
    assert 0 < len(good.calls) < 5


@pytest.mark.slow
@pytest.mark.parametrize("said", ["403", "404", "no model", "422"])
@pytest.mark.parametrize("total", [12, 100, 700])
def test_odd_ones_at_the_end_never_stop_every_run(said: str, total: int, tmp_path: Path) -> None:
    odd = {*range(total - 9, total)}
    for _ in range(3):
        try:
            paid = ask(refusing(said, odd), total, tmp_path, concurrency=4)
            break
        except CollectionStopped:
            pass
    assert len(paid.finals) == total - 9
    assert len(paid.unanswered) == 9


@pytest.mark.slow
def test_a_batch_of_odd_ones_is_no_reason_to_stop_but_a_long_one_is(tmp_path: Path) -> None:
    paid = ask(refusing("422", {*range(100, 118)}), 700, tmp_path / "short", concurrency=1)
    assert len(paid.finals) == 682
    with pytest.raises(CollectionStopped, match="the last 20 questions were all refused") as stop:
        ask(refusing("422", {*range(100, 700)}), 700, tmp_path / "long", concurrency=1)
    assert stop.value.exit_code == 7
    asked = Counter(record["prompt_id"] for record in lines(tmp_path / "long", "sent"))
    assert asked["p699"] == 1, "questions from elsewhere were asked before it stopped"
