"""What is saved is there after a kill: whole or absent, at most two, never a torn one."""

import errno
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chainforge.run.journal import Journal
from chainforge.run.saves import Saves

ROWS = st.lists(
    st.recursive(st.none() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists, max_leaves=5),
    max_size=5,
)


def state(number: int) -> dict[str, object]:
    return {"weights": torch.full((3,), float(number)), "number": number}


def test_the_newest_state_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    saves = Saves(tmp_path)
    assert saves.newest() is None
    for number in range(5):
        saves.write(state(number))
        found = saves.newest()
        assert found is not None
        assert found["number"] == number
        assert torch.equal(found["weights"], torch.full((3,), float(number)))
        assert len(list(tmp_path.iterdir())) == min(number + 1, 2)


def test_a_torn_newest_state_leads_back_to_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saves = Saves(tmp_path)
    for number in range(2):
        saves.write(state(number))
    newest = max(tmp_path.iterdir())
    newest.write_bytes(newest.read_bytes()[:200])
    found = saves.newest()
    assert found is not None
    assert found["number"] == 0
    said = capsys.readouterr().err
    assert "1.pt cannot be read" in said
    assert said.endswith(": trying 0.pt\n")
    assert "afresh" not in said


def test_where_no_state_can_be_read_nothing_is_said_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saves = Saves(tmp_path)
    saves.write(state(0))
    (tmp_path / "0.pt").write_bytes(b"torn")
    assert saves.newest() is None
    said = capsys.readouterr().err
    assert said.endswith(": starting afresh\n")
    assert "going on" not in said


def test_the_global_generators_go_on_where_they_were(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    Saves(tmp_path).write({})
    expected = draw()
    draw()
    Saves(tmp_path).newest()
    assert draw() == expected


def test_a_full_disk_leaves_the_earlier_states_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saves = Saves(tmp_path)
    saves.write(state(0))

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        saves.write(state(1))
    monkeypatch.undo()
    found = saves.newest()
    assert found is not None
    assert found["number"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["0.pt"]


@given(rows=ROWS, cut=st.integers(0, 200))
def test_a_journal_cut_anywhere_keeps_its_whole_rows_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, rows: list[object], cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "rows.jsonl"
    journal = Journal(path)
    for row in rows:
        journal.append(row)
    content = path.read_bytes() if rows else b""
    whole = content[:cut].count(b"\n")
    path.write_bytes(content[:cut])
    again = Journal(path)
    assert again.rows == rows[:whole]
    again.append("one more")
    assert Journal(path).rows == [*rows[:whole], "one more"]
