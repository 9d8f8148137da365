"""Traces are a pure function of the journal: the same bytes, whatever order answers came in."""

import random
from pathlib import Path

import pytest
from fake_api import FakeTeacher, answer, ask, made, refusal

from chainforge.jsonl import write_records
from chainforge.records import Trace
from chainforge.teachers.paid import read_paid
from chainforge.teachers.traces import traces_of

pytestmark = pytest.mark.usefixtures("clock")


def collected(folder: Path, *, shuffled: int = 0) -> FakeTeacher:
    dice = random.Random(shuffled)
    steps = {
        "p1": [refusal(500)],
        "p2": [answer("half", finish="length")],
        "p3": [refusal(422)],
        "p4": [answer("odd", finish="mystery")],
        "p5": [answer(reasoning="")] * 2,
        "p6": [answer("", "", "content_filter")],
        "p7": [answer("4", finish="insufficient_system_resource"), answer("whole")],
    }
    teacher = FakeTeacher(latency_s=lambda: dice.uniform(0, 5), steps=steps)
    teacher.chance = lambda call: answer(f"to {call.label.rpartition('/')[0]}")
    ask(teacher, 10, folder, samples=2)
    return teacher


def said(teacher: FakeTeacher, folder: Path) -> bytes:
    """The bytes of traces.jsonl."""
    path = folder / "traces.jsonl"
    write_records(path, traces_of(teacher, made(teacher, 10, 2), folder, read_paid(folder)))
    return path.read_bytes()


def test_the_order_of_the_answers_changes_no_byte(tmp_path: Path) -> None:
    teacher = collected(tmp_path / "0")
    journal = (tmp_path / "0/journal.jsonl").read_bytes()
    first = said(teacher, tmp_path / "0")
    assert first == said(teacher, tmp_path / "0")
    assert (tmp_path / "0/journal.jsonl").read_bytes() == journal
    for seed in range(1, 4):
        collected(tmp_path / str(seed), shuffled=seed)
        assert (tmp_path / str(seed) / "journal.jsonl").read_bytes() != journal
        assert said(teacher, tmp_path / str(seed)) == first


def test_lines_of_a_journal_may_be_in_any_order(tmp_path: Path) -> None:
    teacher = collected(tmp_path)
    first = said(teacher, tmp_path)
    path = tmp_path / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    random.shuffle(lines)
    path.write_bytes(b"".join(lines))
    assert said(teacher, tmp_path) == first


def test_every_question_has_one_trace_in_its_place(tmp_path: Path) -> None:
    teacher = collected(tmp_path)
    traces = list(traces_of(teacher, made(teacher, 10, 2), tmp_path, read_paid(tmp_path)))
    assert [t.prompt_id for t in traces] == [f"p{n}" for n in range(10) for _ in range(2)]
    first = {trace.prompt_id: trace for trace in reversed(traces)}
    thought = "6*7=42"
    assert first["p0"] == Trace("p0", thought, "to 17/p0/0", "stop", "toy-1-0809")
    assert first["p1"] == Trace("p1", thought, "to 17/p1/0", "stop", "toy-1-0809")
    assert first["p2"] == Trace("p2", thought, "half", "length", "toy-1-0809")
    assert first["p3"] == Trace("p3", "", "", "error", "toy-1"), "no answer"
    assert first["p4"] == Trace("p4", thought, "odd", "error", "toy-1-0809"), "a finish that nobody knows"
    assert first["p5"] == Trace("p5", "", "42", "stop", "toy-1-0809")
    assert first["p6"] == Trace("p6", "", "", "content_filter", "toy-1-0809")
    assert first["p7"] == Trace("p7", thought, "whole", "stop", "toy-1-0809")


def test_samples_of_a_prompt_are_told_apart(tmp_path: Path) -> None:
    teacher = collected(tmp_path)
    traces = traces_of(teacher, made(teacher, 10, 2), tmp_path, read_paid(tmp_path))
    assert [t.content for t in traces if t.prompt_id == "p9"] == ["to 17/p9/0", "to 17/p9/1"]


def test_an_empty_journal_gives_error_traces(tmp_path: Path) -> None:
    teacher = FakeTeacher(identity={})
    traces = list(traces_of(teacher, made(teacher, 2), tmp_path, read_paid(tmp_path)))
    assert traces == [Trace(f"p{n}", "", "", "error", "unknown") for n in range(2)]
