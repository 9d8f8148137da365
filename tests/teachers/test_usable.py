"""Which answers of a journal still answer what is asked: bought once, whatever cannot have changed them."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_api import FakeTeacher, answer, ask, lines, made, prompts

from chainforge.teachers.account import account_of
from chainforge.teachers.question import fingerprint
from chainforge.teachers.traces import traces_of
from chainforge.teachers.usable import describe_unused, names_of, read_answers

pytestmark = pytest.mark.usefixtures("clock")


def teacher(max_tokens: int = 100, host: str = "toy.test", seeded: bool = False, **more: Any) -> FakeTeacher:
    parameters = {"max_tokens": max_tokens, "effort": "high"} | more
    identity = {"provider": f"generic@{host}", "model": "toy-1", "parameters": parameters}
    steps = {"p1": [answer("cut", finish="length", output=max_tokens)]}
    return FakeTeacher(identity=identity, max_tokens=max_tokens, steps=steps, seeded=seeded)


def asked_again(second: FakeTeacher, folder: Path, count: int = 4) -> list[str]:
    """The prompts that `second` is asked about."""
    ask(second, count, folder)
    return [call.label.split("/")[1] for call in second.calls]


@pytest.mark.parametrize("max_tokens", [10, 50, 100])
def test_another_host_or_a_lower_limit_pays_for_nothing_again(max_tokens: int, tmp_path: Path) -> None:
    ask(teacher(), 4, tmp_path)
    assert asked_again(teacher(max_tokens, "other.test"), tmp_path) == []


def test_a_higher_limit_asks_again_for_what_was_cut_off_and_once(tmp_path: Path) -> None:
    ask(teacher(), 4, tmp_path)
    assert asked_again(teacher(200), tmp_path) == ["p1"]
    assert asked_again(teacher(200), tmp_path) == []
    assert asked_again(teacher(150), tmp_path) == []
    assert len(lines(tmp_path, "answer")) == 5


def test_what_was_cut_off_at_twice_the_tokens_is_not_asked_for_below_that(tmp_path: Path) -> None:
    cut = answer("cut", finish="length")
    first = teacher()
    first.steps = {"p1": [cut, cut]}
    ask(first, 4, tmp_path, retry_truncated=True)
    assert [record["max_tokens"] for record in lines(tmp_path, "answer") if record["finish"] == "length"] == [
        100,
        200,
    ]
    assert asked_again(teacher(200), tmp_path) == []
    assert asked_again(teacher(201), tmp_path) == ["p1"]


def as_schema_1(folder: Path, asked: FakeTeacher, count: int) -> None:
    """Write the journal as the version before this one would have."""
    own = {"seed": 17} if asked.seeded else {}
    old = {
        q.fingerprint: fingerprint({**asked.identity, **own}, q.messages, q.sample)
        for q in made(asked, count)
    }
    journal = []
    for record in lines(folder):
        if record["kind"] == "run":
            record |= {"schema": 1}
            del record["usd_per_million"]
        else:
            record["fingerprint"] = old[record["fingerprint"]]
            for new in ("max_tokens", "raw_text"):
                record.pop(new, None)
        journal.append(json.dumps(record) + "\n")
    (folder / "journal.jsonl").write_text("".join(journal))


@pytest.mark.parametrize("seeded", [False, True])
def test_a_journal_of_the_version_before_answers_as_before(seeded: bool, tmp_path: Path) -> None:
    first = teacher(seeded=seeded)
    ask(first, 4, tmp_path)
    new = list(traces_of(first, made(first, 4), tmp_path, read_answers(tmp_path, first, made(first, 4))))
    as_schema_1(tmp_path, first, 4)
    asked = made(first, 4)
    paid = read_answers(tmp_path, first, asked)
    assert list(traces_of(first, asked, tmp_path, paid)) == new
    assert account_of(tmp_path, names_of(paid, asked)).answers == 4
    assert asked_again(teacher(seeded=seeded), tmp_path) == []
    assert asked_again(teacher(90, "other.test", seeded=seeded), tmp_path) == []
    assert asked_again(teacher(101, seeded=seeded), tmp_path) == ["p1"]
    if seeded:
        ask(other := teacher(seeded=True), 4, tmp_path, seed=18)
        assert len(other.calls) == 4, "another seed is another question"


def test_answers_of_the_version_before_can_be_taken_over(tmp_path: Path) -> None:
    first = teacher()
    ask(first, 4, tmp_path / "old")
    as_schema_1(tmp_path / "old", first, 4)
    second = teacher(100, "other.test")
    ask(second, 5, tmp_path / "new", reuse=[str(tmp_path / "old")])
    assert len(second.calls) == 1
    assert asked_again(teacher(200), tmp_path / "new", 5) == ["p1"]


def test_what_changes_an_answer_asks_again_and_the_journal_s_answers_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(teacher(), 4, tmp_path)
    capsys.readouterr()
    second = teacher(effort="low")
    assert len(asked_again(second, tmp_path)) == 4
    said = capsys.readouterr().err
    assert f"4 answers in {tmp_path} are not used" in said
    assert "other settings (parameters.effort high -> low)" in said
    ask(second, 4, tmp_path)
    assert "not used" not in capsys.readouterr().err, "nothing is paid now"
    ask(teacher(), prompts(2, first=9), tmp_path)
    assert "4 answers" in (said := capsys.readouterr().err)
    assert "about other prompts, or with another instruction" in said


def test_nothing_is_unused_where_all_is_used(tmp_path: Path) -> None:
    first = teacher()
    ask(first, 4, tmp_path)
    assert (
        describe_unused(tmp_path, read_answers(tmp_path, first, made(first, 6)), first, made(first, 6)) == []
    )
