"""Outputs never replace what no step has made, and never leave their place."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainforge.errors import ChainForgeError
from chainforge.outputs import leave_nothing_partial, whole_file, whole_folder, write_text
from chainforge.project.claims import PLACES, check_outputs, check_place, claim, made_paths, note
from chainforge.project.graph import GraphStep, Output


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def step(output: str, *deps: str, name: str = "mine", cached: bool = True) -> GraphStep:
    return GraphStep(name, "sft", (), name, deps, (Output(output, cached),))


@contextmanager
def refused(words: str) -> Iterator[None]:
    with pytest.raises(ChainForgeError, match=words) as caught:
        yield
    assert caught.value.fix


@given(st.lists(st.sampled_from(["data", "checkpoints", "..", ".", "a", ".git", "plugins", "/"]), max_size=4))
@settings(max_examples=100, deadline=None)
def test_an_output_lies_below_a_place_for_outputs(parts: list[str]) -> None:
    path = Path(*parts)
    try:
        check_place(step(str(path)), Output(str(path), True))
    except ChainForgeError:
        return
    inside = (Path.cwd() / path).resolve().relative_to(Path.cwd().resolve())
    assert inside.parts[0] in PLACES
    assert len(inside.parts) > 1


@pytest.mark.parametrize("path", ["data", "checkpoints/", ".", "..", "../x", "/x", "docs/x", "data/../x", ""])
def test_any_other_output_is_refused(path: str) -> None:
    with refused("mine is to write"):
        check_outputs([step(path)], [])


def test_an_output_below_a_link_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    Path("checkpoints").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    with refused("checkpoints is a link"):
        check_outputs([step("checkpoints/x")], [])


def test_an_output_is_nobody_else_s_and_not_its_own_input() -> None:
    for other in ("data/x", "data/x/y.jsonl"):
        graph = [step("data/x"), step(other, name="other")]
        with refused("mine is to write data/x, and other data/x"):
            check_outputs(graph[:1], graph)
    with refused("and reads data/x"):
        check_outputs([step("data/x", "data/x")], [])


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_no_step_has_made_is_not_replaced(kind: str) -> None:
    path = Path("checkpoints/x")
    path.parent.mkdir()
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
        check_outputs([step("checkpoints/x")], [])  # an empty folder is nothing
        (path / "precious").write_text("mine")
    else:
        path.symlink_to("nowhere")
    with refused("what lies there was made by no step"):
        check_outputs([step("checkpoints/x")], [])
    note([path])
    check_outputs([step("checkpoints/x")], [])


def test_what_dvc_has_recorded_was_made_by_a_step() -> None:
    write_text(Path("data/x"), "made")
    Path("dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  old:\n    outs:\n    - path: data/x\n      md5: '1'\n"
    )
    check_outputs([step("data/x")], [])


@pytest.mark.parametrize(
    "text", ["<<<<<<< HEAD\n", "- a", "stages: 3", "stages:\n  a: x\n", "stages: {a: {outs: [x]}}"]
)
def test_a_record_that_cannot_be_read_is_told_with_what_to_do(text: str) -> None:
    Path("dvc.lock").write_text(text)
    with refused(r"dvc\.lock.*\n.*git checkout dvc\.lock"):
        made_paths()


def test_a_step_s_own_output_is_known_even_if_it_is_killed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = step("data/x")
    monkeypatch.setattr("chainforge.project.claims.read_graph", lambda: {"mine": mine})
    claim(mine)
    write_text(Path("data/x"), "made")
    claim(mine)  # after a kill, before DVC has recorded it


def test_what_git_tracks_is_not_replaced() -> None:
    write_text(Path("data/x/y"), "in git")
    for command in (("init", "-q"), ("add", "data")):
        subprocess.run(("git", *command), check=True)
    note([Path("data/x")])
    with refused("but git tracks data/x/y"):
        check_outputs([step("data/x")], [])
    check_outputs([step("data/x/y", cached=False)], [])  # metrics are for git, and git has them


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
@pytest.mark.parametrize("write", [whole_file, whole_folder])
def test_what_lies_beside_an_output_stays(kind: str, write: object) -> None:
    precious = Path("precious")
    precious.mkdir()
    (precious / "x").write_text("mine")
    Path("data").mkdir()
    for name in ("out.partial", ".out.partial", ".out.chainforge-1.partial"):
        beside = Path("data") / name
        if kind == "file":
            beside.write_text("mine")
        elif kind == "folder":
            beside.mkdir()
            (beside / "x").write_text("mine")
        else:
            beside.symlink_to(precious.resolve())
    before = {path: path.is_dir() or path.read_text() for path in Path().rglob("*")}
    with write(Path("data/out")) as partial:  # type: ignore[operator]
        if write is whole_folder:
            (partial / "made").write_text("made")
        else:
            partial.write("made")
    assert {path: path.is_dir() or path.read_text() for path in before} == before
    assert Path("data/out").exists()


def test_what_a_killed_process_left_is_removed_and_a_living_one_s_is_not() -> None:
    Path("data").mkdir()
    dead, alive = (Path(f"data/.out.chainforge-{pid}-00000000.partial") for pid in (2**22 + 1, os.getpid()))
    dead.mkdir()
    alive.write_text("being written")
    write_text(Path("data/out"), "made")
    assert not dead.exists()
    assert alive.exists()


def test_a_killed_process_that_nobody_has_waited_for_is_gone_as_well() -> None:
    Path("data").mkdir()
    maker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    left = Path(f"data/.out.chainforge-{maker.pid}-00000000.partial")
    left.write_text("half")
    write_text(Path("data/out"), "made")
    assert left.exists(), "its maker runs"
    maker.kill()
    while psutil.Process(maker.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    write_text(Path("data/out"), "made")
    assert not left.exists()
    maker.communicate()


@pytest.mark.parametrize("write", [whole_file, whole_folder])
def test_who_ends_the_program_leaves_no_partial_output(write: object) -> None:
    write_text(Path("data/out"), "from before")
    with suppress(FileNotFoundError), write(Path("data/out")):  # type: ignore[operator]
        assert len(list(Path("data").iterdir())) == 2
        leave_nothing_partial()
        assert [path.name for path in Path("data").iterdir()] == ["out"]


def test_a_link_in_place_of_an_output_folder_is_replaced_and_not_followed() -> None:
    precious = Path("precious")
    precious.mkdir()
    (precious / "x").write_text("mine")
    Path("checkpoints").mkdir()
    Path("checkpoints/out").symlink_to(precious.resolve())
    with whole_folder(Path("checkpoints/out")) as folder:
        (folder / "made").write_text("made")
    assert (precious / "x").read_text() == "mine"
    assert not Path("checkpoints/out").is_symlink()
