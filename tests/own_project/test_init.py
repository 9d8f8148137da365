"""`chainforge init`: a whole project in a new or empty folder, or nothing."""

import json
import os
import subprocess
import sys
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from click.testing import CliRunner
from tree import PLUGINS, PROFILES, ROOT

from chainforge.cli import cli
from chainforge.errors import ChainForgeError
from chainforge.own_project import texts
from chainforge.plugins import load_plugins
from chainforge.project.code_digests import closure, digest_code

AUTHOR = {"GIT_AUTHOR_NAME": "T", "GIT_AUTHOR_EMAIL": "t@example.org"}
AUTHOR |= {"GIT_COMMITTER_NAME": "T", "GIT_COMMITTER_EMAIL": "t@example.org"}


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in AUTHOR.items():
        monkeypatch.setenv(name, value)


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == code, result.output
    assert (code == 0) or "\n  -> " in result.stderr
    return result.output


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {path: text for path, text in found.items() if not path.startswith(".git/")}


def git(folder: str, *arguments: str) -> str:
    said = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return said.stdout


def test_graph_scripts_and_profiles_are_those_of_chainforge_and_all_is_committed() -> None:
    run("init", "mine", "--profile", "smoke")
    made = contents(Path("mine"))
    for name in ("dvc.yaml", ".dvc/config", "profiles/smoke.yaml", "stages/grpo.py", "stages/lock.py"):
        assert made[name] == (ROOT / name).read_bytes()
    assert {name for name in made if name.startswith("plugins/")} == {"plugins/reward_short.py"}
    assert b"profile: smoke\n" in made["params.yaml"]
    assert git("mine", "status", "--short") == ""
    assert set(git("mine", "ls-files").split()) == set(made)
    assert os.listdir(".") == ["mine"]


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
def test_params_yaml_is_what_the_profile_stands_for(profile: str) -> None:
    run("init", "mine", "--profile", profile, "--no-git")
    shown = run("-C", "mine", "profile", "show", profile)
    assert Path("mine/params.yaml").read_text(encoding="utf-8") == shown
    assert run("-C", "mine", "profile", "diff") == f"params.yaml is profile {profile}, unchanged\n"


def test_an_empty_folder_is_filled_and_stays_the_same_folder() -> None:
    Path("mine").mkdir()
    before = Path("mine").stat().st_ino
    run("init", "mine")
    Path("other").mkdir()
    os.chdir("other")
    run("init", ".", "--no-git")
    os.chdir("..")
    assert Path("mine").stat().st_ino == before
    assert {*contents(Path("other"))} - {*contents(Path("mine"))} == {".dvc/config.local"}


@pytest.mark.parametrize("kind", ["file", "link", "full"])
def test_what_is_there_is_left_alone(kind: str) -> None:
    if kind == "file":
        Path("mine").write_text("x")
    elif kind == "link":
        Path("mine").symlink_to("nowhere")
    else:
        Path("mine").mkdir()
        Path("mine/notes.md").write_text("x")
    said = run("init", "mine", code=1)
    assert ("not empty: it has notes.md" in said) == (kind == "full")
    assert os.listdir(".") == ["mine"]
    assert contents(Path("mine")) == ({"notes.md": b"x"} if kind == "full" else {})


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("wrong", ["profile", "identity", "hook"])
def test_one_that_fails_leaves_nothing(wrong: str, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if wrong == "identity":
        monkeypatch.setenv("GIT_COMMITTER_NAME", "")
    if wrong == "hook":
        Path("hooks").mkdir()
        Path("hooks/pre-commit").write_text("#!/bin/sh\necho no >&2; exit 1\n")
        Path("hooks/pre-commit").chmod(0o755)
        monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
        monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.hooksPath")
        monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(Path("hooks").resolve()))
    if there:
        Path("mine").mkdir()
    before = sorted(os.listdir("."))
    run("init", "mine", *(["--profile", "tyni"] if wrong == "profile" else []), code=1)
    assert sorted(os.listdir(".")) == before
    assert not there or os.listdir("mine") == []


@pytest.mark.slow
def test_without_git_dvc_knows_that_there_is_none() -> None:
    run("init", "mine", "--no-git")
    assert not Path("mine/.git").exists()
    command = [sys.executable, "-m", "dvc", "status"]
    said = subprocess.run(command, cwd="mine", capture_output=True, text=True)
    assert said.returncode == 0, said.stderr


@pytest.mark.slow
def test_bundled_plugins_are_found_and_a_file_of_that_name_takes_the_place_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run("init", "mine", "--no-git")
    monkeypatch.chdir("mine")
    plugins = load_plugins()
    assert not plugins.broken
    assert plugins.pick("rewards", "short").source == "plugins/reward_short.py"
    assert plugins.pick("rewards", "format").source == "bundled/reward_format.py"
    assert {e.source for e in plugins.entries.values()} >= {f"bundled/{name}.py" for name in PLUGINS}
    Path("plugins/reward_format.py").write_bytes((ROOT / "plugins/reward_format.py").read_bytes())
    plugins = load_plugins()
    assert not plugins.broken
    assert plugins.pick("rewards", "format").source == "plugins/reward_format.py"
    Path("plugins/reward_short.py").write_text(
        "import chainforge as cf\n"
        "@cf.hookimpl\ndef register_rewards(register): register('correct', lambda **_: [])\n"
    )
    with pytest.raises(ChainForgeError, match=r"plugins/reward_short\.py and bundled/reward_correct\.py"):
        load_plugins().pick("rewards", "correct")
    change = Path("plugins/reward_short.py").read_text().replace("[])", "[], override=True)")
    Path("plugins/reward_short.py").write_text(change)
    plugins = load_plugins()
    assert plugins.pick("rewards", "correct").source == "plugins/reward_short.py"
    assert not plugins.broken


@pytest.mark.slow
def test_a_step_s_code_is_the_same_in_a_project_as_in_a_checkout() -> None:
    run("init", "mine", "--no-git")
    for script in ("stages/grpo.py", "stages/report.py"):
        there = closure(ROOT, ROOT / script)
        for root in (Path("mine"), Path("mine").resolve()):
            here = closure(root, root / script)
            assert [path.name for path in here] == [path.name for path in there]
            assert digest_code(here) == digest_code(there)


ORIGINS = {
    "an index": (None, "chainforge-r1"),
    "a folder": ({"url": ROOT.as_uri(), "dir_info": {"editable": True}}, f"chainforge-r1 @ {ROOT.as_uri()}"),
    "a wheel that is gone": ({"url": "file:///nowhere/x.whl", "archive_info": {}}, "chainforge-r1"),
    "git": (
        {"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
        "chainforge-r1 @ git+https://example.org/x.git@abc",
    ),
}


@pytest.mark.parametrize("origin", ORIGINS)
def test_make_run_installs_chainforge_from_where_it_came(
    origin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, expected = ORIGINS[origin]
    info = tmp_path / "chainforge_r1-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: chainforge-r1\n")
    if url:
        (info / "direct_url.json").write_text(json.dumps(url))
    monkeypatch.setattr(texts, "distribution", lambda name: PathDistribution(info))
    assert texts.render("x")["requirements.txt"].splitlines()[-1] == expected


def test_what_was_made_is_written_down() -> None:
    run("init", "mine", "--no-git")
    made = json.loads(Path("mine/.chainforge/made.json").read_text(encoding="utf-8"))
    here = contents(Path("mine"))
    assert made["name"] == "mine"
    assert {*made["files"]} == {*here} - {".chainforge/made.json", "params.yaml", ".dvc/config.local"}
    assert all(here[path] == text.encode() for path, text in made["files"].items())
