"""A command finds its project from below, or says that there is none; paths stay those of the user."""

from importlib.metadata import version
from pathlib import Path

import pytest
from a_project import ROW, Run, write_log, write_results

import chainforge

NEEDY = (
    ["results"], ["timings"], ["experiments"], ["compare", "HEAD"], ["gc"], ["plugins", "diff"], ["collect"],
    ["results", "--json"], ["timings", "--json"],
)  # fmt: skip


@pytest.mark.parametrize("arguments", NEEDY, ids=" ".join)
def test_outside_of_a_project_a_command_says_so(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there is no project in" in run(*arguments, code=1).stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", NEEDY, ids=" ".join)
def test_help_needs_no_project(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "Usage:" in run(*arguments, "--help").stdout


def test_the_project_is_found_from_below_and_by_its_name(
    project: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    write_results(project, [ROW])
    write_log(
        project, "prompts@general", {"step": "prompts@general", "wall_s": 1.5, "peak_mb": 60, "cpus": 2}
    )
    here = {command: run(command).stdout for command in ("results", "timings")}
    monkeypatch.chdir(project / "sub" / "deep")
    assert {command: run(command).stdout for command in here} == here
    monkeypatch.chdir("/")
    assert {command: run("-C", str(project / "sub"), command).stdout for command in here} == here
    assert run("-C", str(project / "nowhere"), "results", code=2).stderr


@pytest.mark.slow
def test_paths_are_those_of_the_folder_where_the_user_is(
    project: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(project / "sub")
    folder = project / "sub" / "chainforge-mine"
    assert str(folder) in run("plugins", "new", "reward", "mine").stdout
    assert folder.is_dir()
    assert run("plugins", "new", "reward", "other", "--folder", "deep/other").exit_code == 0
    assert (project / "sub/deep/other/pyproject.toml").is_file()
    said = run("mock-teacher", "--faults", "nowhere.yaml", code=1).stderr
    assert str(project / "sub" / "nowhere.yaml") in said


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert chainforge.__version__ == version("chainforge-r1")
    assert chainforge.__version__ in run("--version").stdout
