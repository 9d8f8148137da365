"""What is saved is there after a kill: whole or absent, at most two, never a torn one."""

import errno
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chainforge.errors import ChainForgeError
from chainforge.run.journal import Journal
from chainforge.run.metrics import StepTable
from chainforge.run.saves import Saves
from chainforge.run.shared_saves import _room_for

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


def test_a_save_with_a_broken_random_state_is_not_taken_and_leaves_the_generators_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saves = Saves(tmp_path)
    saves.write(state(0))
    saved = torch.load(tmp_path / "0.pt", weights_only=True)
    saved["random"]["numpy"] = ["MT19937", [1, 2], 0, 0, 0.0]
    torch.save(saved, tmp_path / "0.pt")
    random.seed(5)
    before = random.getstate()
    assert saves.newest() is None
    assert random.getstate() == before
    assert capsys.readouterr().err.endswith(": starting afresh\n")


class Evil:
    """What a pickle can do when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of the file ran')",)


def test_a_save_is_data_and_no_code(tmp_path: Path) -> None:
    torch.save({"state": Evil(), "random": {}}, tmp_path / "0.pt")
    assert Saves(tmp_path).newest() is None


def test_a_table_of_other_columns_is_not_gone_on_with(tmp_path: Path) -> None:
    table = StepTable(tmp_path / "live.csv", ("loss",))
    table.add(1, loss=0.5)
    table.load_state_dict(table.state_dict())
    for rows in ("", "step,loss\n1\n", "step,reward\n1,0.5\n", "garbage"):
        with pytest.raises(ValueError, match="a table without the columns step, loss"):
            table.load_state_dict({"rows": rows})
    assert (tmp_path / "live.csv").read_text() == "step,loss\n1,0.5\n"


@pytest.mark.parametrize("line", ["{", "garbage", "[" * 100_000, "\xff"])
def test_a_line_that_is_no_row_is_named_and_the_file_set_aside(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"[1]\n{line}\n[2]\n", encoding="latin-1")
    with pytest.raises(
        ChainForgeError, match=r"rows\.jsonl, line 2: not a row.*\n  -> the file is .*unfit now"
    ):
        Journal(path)
    assert (tmp_path / "rows.jsonl.unfit").exists()
    assert Journal(path).rows == []


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


@pytest.mark.slow
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


@pytest.mark.parametrize("kind", [torch.Tensor, torch.nn.Parameter])
def test_a_state_is_not_read_beside_what_is_on_the_device(kind: type[torch.Tensor]) -> None:
    made = kind(torch.empty(3, 4, dtype=torch.bfloat16, device="meta"))
    room = _room_for(made)
    assert (room.device.type, room.dtype, room.shape) == ("cpu", torch.bfloat16, (3, 4))
