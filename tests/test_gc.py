"""`chainforge gc` removes what no run needs, and nothing that one does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from filelock import FileLock

from chainforge.cli import cli
from chainforge.cli.gc import human


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).touch()
    for variable in ("DVC_ROOT", "CHAINFORGE_WORK"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def resume_folder(root: Path, name: str, *, finished: bool) -> Path:
    folder = root / ".work" / name
    folder.mkdir(parents=True)
    (folder / "inputs.json").write_text(json.dumps({"step": name.partition("-")[0]}), encoding="utf-8")
    (folder / "0.pt").write_bytes(b"x" * 5000)
    (folder / "lock").touch()
    if finished:
        (folder / "finished").touch()
    return folder


def gc(*options: str) -> str:
    ended = CliRunner().invoke(cli, ["gc", *options], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_finished_folders_go_and_unfinished_ones_stay(project: Path) -> None:
    done = resume_folder(project, "grpo_final-0123", finished=True)
    stopped = resume_folder(project, "grpo_final-4567", finished=False)
    said = gc()
    assert not done.exists()
    assert stopped.exists()
    assert f"{Path('.work/grpo_final-0123')}  (finished)" in said
    assert "5.0 kB freed" in said
    assert "of stopped runs 5.0 kB are kept" in said


def test_unfinished_folders_go_when_asked_for(project: Path) -> None:
    folders = [resume_folder(project, name, finished=name == "a") for name in ("a", "b")]
    said = gc("--unfinished")
    assert not any(folder.exists() for folder in folders)
    assert "(unfinished)" in said
    assert "10.1 kB freed" in said


def test_a_dry_run_removes_nothing(project: Path) -> None:
    folders = [resume_folder(project, name, finished=name == "a") for name in ("a", "b")]
    said = gc("--unfinished", "--dry-run")
    assert all((folder / "0.pt").exists() for folder in folders)
    assert said.count("would go") == 2
    assert "would be freed" in said


@pytest.mark.parametrize("finished", [True, False])
def test_what_a_live_process_holds_stays(project: Path, finished: bool) -> None:
    folder = resume_folder(project, "sft_refine-0123", finished=finished)
    (folder / "lock.owner").write_text("PID 4242 on elsewhere\n", encoding="utf-8")
    with FileLock(folder / "lock"):
        said = gc("--unfinished")
    assert (folder / "0.pt").exists()
    assert "in use" in said
    assert "PID 4242 on elsewhere" in said
    assert "0 B freed" in said


def test_a_folder_that_is_not_ours_stays(project: Path) -> None:
    (project / ".work/mine").mkdir(parents=True)
    (project / ".work/mine/notes.txt").touch()
    gc("--unfinished")
    assert (project / ".work/mine/notes.txt").exists()


def test_the_folder_is_where_the_steps_put_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINFORGE_WORK", str(project / "elsewhere"))
    here = resume_folder(project, "a", finished=True)
    assert "0 B freed" in gc()
    (project / ".work").rename(project / "elsewhere")
    assert "freed" in gc()
    assert not (project / "elsewhere" / here.name).exists()


def test_nothing_to_do_is_no_error(project: Path) -> None:
    assert "0 B freed" in gc()


@pytest.mark.slow
def test_what_a_tag_alone_still_names_is_kept(project: Path) -> None:
    author = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    dvc = (sys.executable, "-m", "dvc")
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run([*dvc, "init", "--quiet"], check=True)
    for text in ("published", "abandoned", "now"):
        Path("result.txt").unlink(missing_ok=True)
        Path("result.txt").write_text(text, encoding="utf-8")
        subprocess.run([*dvc, "add", "--quiet", "result.txt"], check=True)
        subprocess.run(["git", "add", "--all"], check=True)
        amend = () if text == "published" else ("--amend",)
        subprocess.run(["git", *author, "commit", "--quiet", *amend, "--message", text], check=True)
        if text == "published":
            subprocess.run(["git", "tag", "v1"], check=True)
    assert f"{len('abandoned')} B in 1 objects are of no workspace, branch, tag or experiment" in gc()


@pytest.mark.slow
@pytest.mark.parametrize("git", [True, False])
def test_what_dvc_would_free_is_said_but_not_done(project: Path, git: bool) -> None:
    if git:
        subprocess.run(["git", "init", "--quiet"], check=True)
    dvc = (sys.executable, "-m", "dvc")
    subprocess.run([*dvc, "init", "--quiet", *([] if git else ["--no-scm"])], check=True)
    for text in ("x" * 3000, "y"):
        Path("kept.txt").unlink(missing_ok=True)
        Path("kept.txt").write_text(text, encoding="utf-8")
        subprocess.run([*dvc, "add", "--quiet", "kept.txt"], check=True)
    if git:
        author = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        subprocess.run(["git", "add", "--all"], check=True)
        subprocess.run(["git", *author, "commit", "--quiet", "--message", "as it is"], check=True)
    before = sorted(Path(".dvc/cache").rglob("*"))
    said = gc()
    assert "3.0 kB in 1 objects" in said
    assert ("dvc gc --workspace --all-branches --all-tags --all-experiments" in said) == git
    assert sorted(Path(".dvc/cache").rglob("*")) == before


@pytest.mark.slow
def test_a_dvc_that_fails_is_no_reason_to_fail(project: Path) -> None:
    (project / ".dvc").mkdir()
    (project / ".dvc/config").write_text("[nonsense", encoding="utf-8")
    assert "dvc gc could not be asked" in gc()


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e6, "2.0 MB"), (3e10, "30.0 GB")]
)
def test_sizes_are_readable(number: float, text: str) -> None:
    assert human(number) == text
