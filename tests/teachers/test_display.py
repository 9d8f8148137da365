"""What a collection shows while it runs."""

import io
import json
import sys
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_api import HANGS, FakeTeacher, answer, ask, refusal
from rich.console import Console
from virtual_time import Clock

from chainforge.teachers.budget import Budget
from chainforge.teachers.display import display, heading, panel, sentence
from chainforge.teachers.limit import Limit
from chainforge.teachers.stops import CollectionStopped
from chainforge.teachers.tally import Tally
from chainforge.teachers.verdict import Verdict

ANSWERED, AGAIN = Verdict("keep", "answered", answered=True), Verdict("again", "failed")


def at_some_point(cap: Decimal | None = None, **changes: Any) -> Any:
    """A collector that 60 seconds ago began to ask about 1000 questions, of which it knew 200."""
    state = SimpleNamespace(
        tally=Tally(1000, kept=200, started=0.0),
        budget=Budget(cap),
        limit=Limit(64),
        flying=set(range(12)),
        stopped=None,
        priced=True,
    )
    return SimpleNamespace(**vars(state) | changes)


@pytest.fixture(autouse=True)
def _a_minute_has_passed(clock: Clock) -> None:
    clock.now = 60.0


def test_at_first_there_is_little_to_say() -> None:
    assert heading(at_some_point()) == "200 of 1,000 (20%)"
    assert sentence(at_some_point()) == "12 in flight of 16 · 0 tokens/s · 0.0000 USD"


def test_pace_and_time_left_are_those_of_the_last_minute(clock: Clock) -> None:
    state = at_some_point()
    for _ in range(100):
        state.tally.count(ANSWERED, 600)
    assert heading(state) == "300 of 1,000 (30%), 0:07:00 left"
    assert "1,000 tokens/s" in sentence(state)
    clock.now += 61
    assert heading(state) == "300 of 1,000 (30%)"
    assert " 0 tokens/s" in sentence(state)


def test_money_is_told_with_its_cap_and_what_may_be_lost() -> None:
    state = at_some_point(Decimal("5.5"))
    state.budget.spent = Decimal("1.23456")
    assert " · 1.2346 of 5.5 USD" in sentence(state)
    assert "cost unknown" in sentence(at_some_point(priced=False))
    state.budget.lost = Decimal("0.05")
    assert " · 1.2346 of 5.5 USD (+0.0500 possibly)" in sentence(state)


def test_only_what_was_asked_again_is_said_to_be() -> None:
    state = at_some_point()
    state.tally.count(ANSWERED, 10)
    assert "asked again" not in sentence(state)
    for _ in range(3):
        state.tally.count(AGAIN, 0)
    state.tally.count(Verdict("again", "busy"), 0)
    assert " · asked again: busy 1, failed 3" in sentence(state)
    state.tally.count(Verdict("skip", "failed"), 0)
    assert sentence(state).endswith(" · asked again: busy 1, failed 3 · 1 without an answer")


def test_why_calls_fail_is_said_in_one_line_that_is_not_too_long() -> None:
    state = at_some_point(tally=Tally(1000, kept=200, left_out=3, started=0.0))
    state.tally.count(Verdict("again", "failed"), 0, "500: the GPU is on fire")
    state.tally.count(ANSWERED, 10)
    assert sentence(state).endswith(
        "asked again: failed 1 · 3 refused before · newest problem: 500: the GPU is on fire"
    )
    state.tally.count(AGAIN, 0, "500: \x1b[2J" + "x" * 500)
    assert "\x1b" not in sentence(state)
    assert len(sentence(state)) < 400


class Gone(io.StringIO):
    """A terminal, or a pipe, that was closed."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("tty", [True, False])
def test_a_closed_terminal_is_no_reason_to_lose_answers(
    as_json: bool, tty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Gone()
    gone.isatty = lambda: tty  # type: ignore[method-assign]
    with display("hard", as_json=as_json) as watch:
        monkeypatch.setattr(sys, "stdout", gone)
        monkeypatch.setattr(sys, "stderr", gone)
        paid = ask(FakeTeacher(latency_s=lambda: 10), 64, tmp_path, concurrency=4, watch=watch)
    monkeypatch.undo()
    assert len(paid.finals) == 64


def test_what_is_in_the_way_is_said_last() -> None:
    state = at_some_point(stopped=CollectionStopped("signal", "stopped (Ctrl-C)"))
    state.tally.waiting_for = "off-peak hours"
    state.tally.count_text(12345)
    assert sentence(state).endswith(
        "12,345 characters streamed · waiting for off-peak hours · "
        "stopped (Ctrl-C): waiting for the calls in flight"
    )
    state.flying = set()
    assert "Ctrl-C" not in sentence(state), "then it is the error that says so"


def test_it_is_done_when_all_is_answered() -> None:
    state = at_some_point()
    for _ in range(800):
        state.tally.count(ANSWERED, 1)
    assert heading(state) == "1,000 of 1,000 (100%)"
    assert heading(at_some_point(tally=Tally(0))) == "0 of 0 (0%)"


def test_without_a_terminal_a_line_is_written_now_and_then_and_in_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with display("collect_cot") as watch:
        ask(FakeTeacher(latency_s=lambda: 10), 64, tmp_path, concurrency=4, watch=watch)
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert output.out == ""
    assert 5 <= len(lines) <= 7, "160 seconds, a line every 30"
    assert lines[-1].startswith("collect_cot: 64 of 64 (100%) · 0 in flight of 4 · ")
    with display("nothing to ask") as watch:
        ask(FakeTeacher(), 64, tmp_path, watch=watch)
    assert capsys.readouterr().err == ""


def test_the_last_state_is_shown_however_it_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CollectionStopped), display("hard") as watch:
        ask(FakeTeacher(steps={"p19": [refusal(402)] * 2}), 20, tmp_path, watch=watch)
    assert capsys.readouterr().err.count("hard: 19 of 20 (95%)") == 1


def test_json_is_a_line_a_second_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = {"p0": [refusal(500)], "p1": [HANGS], "p2": [answer(reasoning="")]}
    with display("hard", as_json=True) as watch:
        ask(FakeTeacher(steps=steps), 5, tmp_path, watch=watch, budget_usd=0.5, deadline_s=3, base_s=0.1)
    output = capsys.readouterr()
    shown = [json.loads(line) for line in output.out.splitlines()]
    assert 3 <= len(shown) <= 5
    last = shown[-1]
    assert (last["step"], last["done"], last["total"], last["in_flight"]) == ("hard", 5, 5, 0)
    assert last["retries"] == {"deadline": 1, "failed": 1, "no_reasoning": 1}
    assert Decimal(last["spent_usd"]) > 0
    assert Decimal(last["possibly_paid_usd"]) > 0
    assert last["budget_usd"] == "0.5"


def test_a_terminal_shows_a_bar_above_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    Console(file=shown, width=100).print(panel("[hard]", at_some_point()))
    first, second = shown.getvalue().splitlines()
    assert first.split()[0] == "[hard]"
    assert first.rstrip().endswith("200 of 1,000 (20%)")
    assert second.startswith("12 in flight of 16")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with display("live") as watch:
        ask(FakeTeacher(latency_s=lambda: 1), 20, tmp_path, watch=watch)
