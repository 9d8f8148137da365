"""What a collection pays: each answer once, and never more than the budget."""

import random
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fake_api import (
    CHEAP,
    HANGS,
    RECOVERABLE,
    FakeTeacher,
    Step,
    answer,
    ask,
    lines,
    made,
    prompts,
    refusal,
    stopped,
)
from virtual_time import Clock

from chainforge.errors import ChainForgeError
from chainforge.providers.calls import Call, Usage
from chainforge.providers.prices import Prices, Window
from chainforge.teachers import answers, journal
from chainforge.teachers.journal import append
from chainforge.teachers.paid import read_paid


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
