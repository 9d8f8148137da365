"""`chainforge plugins new`: a package that is whole, tested and keeps its contract as it is written."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from fresh import Fresh, make_project

from chainforge.cli import cli

NAMES = {"reward": "rw", "prompt-source": "ps", "teacher": "tt_2", "student-model": "sm"}
LONG = "x" * 300
UNFIT = (
    "my-reward", "2x", "def", "Upper", "foo_", "a__b", "r1", "naïve", "", "a/b", "correct", "format",
    LONG, "json", "os", "match", "tab\ttab", "new\nline", "\x1b[31m",
)  # fmt: skip


def new(*arguments: str, fails: bool = False) -> str:
    result = CliRunner().invoke(cli, ["plugins", "new", *arguments])
    assert (result.exit_code != 0) == fails, result.output
    return result.output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "name"),
    [
        # A student model's own tests import torch, in a process of their own.
        pytest.param(role, name, marks=pytest.mark.long if role == "student-model" else ())
        for role, name in NAMES.items()
    ],
)
def test_the_package_needs_no_project_and_its_own_tests_pass(
    role: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = new(role, name)
    folder = tmp_path / f"chainforge-{name.replace('_', '-')}"
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert f"pip install -e {folder.name}" in said
    assert f"chainforge plugins check {name}" in said
    command = (sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider")
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"\d passed", ended.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("role", "name"), NAMES.items())
def test_the_package_is_formatted_linted_and_has_a_place_for_ones_own(
    role: str, name: str, tmp_path: Path
) -> None:
    new(role, name, "--folder", str(tmp_path / "made"))
    files = {path.relative_to(tmp_path / "made").as_posix() for path in (tmp_path / "made").rglob("*.*")}
    source = f"src/chainforge_{name}.py"
    assert files == {source, f"tests/test_{name}.py", "pyproject.toml", "README.md", ".gitignore"}
    assert (tmp_path / "made" / source).read_text().count("# replace this") == 1
    assert "{{" not in "".join(
        (tmp_path / "made" / f).read_text() for f in files if "student" not in role or f != source
    )
    project = tomllib.loads((tmp_path / "made/pyproject.toml").read_text())["project"]
    assert project["entry-points"]["chainforge"] == {name: f"chainforge_{name}"}
    assert project["dependencies"] == []
    ruff = Path(sys.executable).with_name("ruff")
    rules = ("--isolated", "--line-length", "110")
    for command in (("check", "--select", "E,F,UP,B,SIM,PT,D100,D101"), ("format", "--check")):
        ended = subprocess.run(
            [ruff, *command, *rules, "."], cwd=tmp_path / "made", capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("name", UNFIT)
def test_a_name_that_cannot_be_or_is_taken_is_refused_and_nothing_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = new("reward", name, fails=True)
    assert "\n  -> " in said
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_the_projects_own_plugins_is_taken_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plugins").mkdir()
    Path("plugins/mine.py").write_text(
        "import chainforge as cf\n"
        "@cf.hookimpl\ndef register_rewards(register): register('mine', lambda **_: [])\n"
    )
    assert "there is a reward called 'mine' already, from mine.py" in new("reward", "mine", fails=True)
    new("teacher", "mine")  # a role is a namespace of its own


@pytest.mark.slow
def test_an_unfit_name_comes_with_one_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for unfit in ("My-Reward!", "class", "42", "__x__", "json", LONG, "_".join(["ab"] * 99)):
        guess = new("reward", unfit, fails=True).strip().rpartition(" ")[2]
        new("reward", guess)


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("chainforge-mine").mkdir()
    assert "chainforge-mine is there already" in new("reward", "mine", fails=True)
    assert list(Path("chainforge-mine").iterdir()) == []
    assert "'rewardish' is not one of reward, " in new("rewardish", "mine", fails=True)


@pytest.mark.long
def test_installed_every_one_of_them_is_listed_keeps_its_contract_and_can_be_selected(
    tmp_path: Path,
) -> None:
    fresh = make_project(tmp_path)
    said = [
        fresh.run(f"chainforge plugins new {role} {name} --folder {role}") for role, name in NAMES.items()
    ]
    fresh.run("pip install " + " ".join(f"-e ./{role}" for role in NAMES))
    commands = [re.findall("dvc exp run .*", text)[0] for text in said]
    listed = fresh.run("chainforge plugins list")
    for role, name in NAMES.items():
        distribution = f"chainforge-{name.replace('_', '-')} 0.1.0"
        assert re.search(rf"^{name} +{role} +{distribution} +-$", listed, re.MULTILINE)
        findings = fresh.run(f"chainforge plugins check {name}")
        assert "FAILED" not in findings
        assert findings.count("\nok") >= 4
    settings = " ".join(command.removeprefix("dvc exp run ") for command in commands)
    fresh.run(f"dvc exp run {settings} lock")  # the step that reads all settings and finds all plugins
    locked = (fresh.folder / "plugins.lock.json").read_text()
    assert all(f":{name}" in locked for name in NAMES.values())


@pytest.mark.slow
def test_a_wheel_brings_the_templates_and_the_fixtures(tmp_path: Path) -> None:
    fresh = make_project(tmp_path)
    fresh.run("python -m pip wheel --quiet --no-deps --no-build-isolation -w wheel .")
    fresh.run("pip install --target ../site wheel/*.whl")
    fresh.run("rm -rf chainforge")
    there = Fresh(tmp_path / "empty", fresh.environment)
    there.folder.mkdir()
    said = there.run(
        "PYTHONPATH=../site chainforge plugins new reward mine && cd chainforge-mine "
        "&& PYTHONPATH=../../site python -m pytest -q "
        "&& PYTHONPATH=../../site python -c 'import chainforge; print(chainforge.__file__)'"
    )
    assert f"{tmp_path}/site/chainforge/__init__.py" in said.replace("/empty/chainforge-mine/../..", "")
