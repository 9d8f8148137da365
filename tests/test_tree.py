"""The tests see the project alone, whatever else lies in its folder."""

import subprocess
from pathlib import Path

import pytest
from tree import ROOT, copy_project

JUNK = {
    "params.yaml": "profile: mine\nrun: {seed: ???\n",
    "plugins.lock.json": "<<<<<<< HEAD",
    "dvc.lock": "schema: '2.0'\nstages: {}\n",
    "metrics/eval/a/reasoning.json": "{}",
    "plots/grpo_final.csv": "step,reward\n",
    "reports/stages.json": "[]",
    "data/prompts/reasoning_train.jsonl": "",
    "checkpoints/mine/config.json": "{}",
    "collected/collect_cot/calls.jsonl": "",
    ".work/sft_cold_start-1/1.pt": "",
    ".dvc/config.local": "[core]\n    no_scm = true\n",
    ".dvc/cache/files/md5/00/00": "",
    "dvc.yaml.orig": "",
    "notes.md": "mine",
    "requirements.txt": "torch",
    "plugins/mine.py": "import sys; sys.exit(3)\n",
    "plugins/reward_mine.py": "import nothing_like_it\n",
    "plugins/__pycache__/mine.cpython-311.pyc": "",
    "profiles/mine.yaml": "profile: [",
    "chainforge/__pycache__/x.cpython-311.pyc": "",
    "installed/chainforge_bonus.py": "raise SystemExit",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("committed", [False, True])
def test_what_lies_in_the_folder_does_not_matter(tmp_path: Path, committed: bool) -> None:
    copy_project(tmp_path / "clean")
    copy_project(tmp_path / "used")
    for name, text in JUNK.items():
        (tmp_path / "used" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "used" / name).write_text(text)
    if committed:
        author = ("-c", "user.name=T", "-c", "user.email=t@example.org")
        for command in (("init",), ("add", "--all", "--force"), (*author, "commit", "-m", "mine")):
            subprocess.run(("git", *command), cwd=tmp_path / "used", check=True, capture_output=True)
    copy_project(tmp_path / "copy", tmp_path / "used")
    assert contents(tmp_path / "copy") == contents(tmp_path / "clean")


def test_the_fixture_has_the_files_of_the_project(root: Path) -> None:
    here = contents(root)
    assert {"dvc.yaml", "params.yaml", "chainforge/cli/__init__.py", "stages/lock.py", ".dvc/config"} <= set(
        here
    )
    more = {name for name in here if not (ROOT / name).is_file()}
    assert {name for name in more if "__pycache__" not in name} == set()
    assert here["params.yaml"] == here["profiles/tiny.yaml"]
