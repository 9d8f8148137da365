"""A copy of the project, as DVC makes it for an experiment, has the models and data of the project."""

from pathlib import Path

import pytest

from chainforge.project.brought import link_brought


@pytest.fixture
def original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project; the working folder is the copy."""
    project, copy = tmp_path / "project", tmp_path / "project/.dvc/tmp/exps/copy"
    copy.mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.chdir(copy)
    for name in ("model/config.json", "sums.jsonl"):
        (project / "inputs" / name).parent.mkdir(parents=True, exist_ok=True)
        (project / "inputs" / name).write_text("of the project")
    return project


def test_what_the_copy_has_not_is_that_of_the_project(original: Path) -> None:
    Path("inputs").mkdir()
    Path("inputs/sums.jsonl").write_text("tracked by git")
    link_brought()
    link_brought()
    assert Path("inputs/model/config.json").read_text() == "of the project"
    assert Path("inputs/sums.jsonl").read_text() == "tracked by git"


@pytest.mark.parametrize("there", ["inputs", "inputs/sums.jsonl"])
def test_a_link_of_the_copy_s_own_stays(there: str, original: Path) -> None:
    link = Path(there)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to("nowhere")
    link_brought()
    assert link.readlink() == Path("nowhere")


def test_nothing_is_made_where_the_project_has_none(original: Path) -> None:
    (original / "inputs").rename(original / "elsewhere")
    link_brought()
    assert not Path("inputs").exists()


def test_in_the_project_itself_nothing_happens(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(original)
    link_brought()
    assert not any(path.is_symlink() for path in Path("inputs").iterdir())
