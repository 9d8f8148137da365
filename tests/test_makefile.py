"""`make` on a machine that lacks something says what, and what to do about it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

MAKE = shutil.which("make")
pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed")


def make(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL")}
    environment["PATH"] = os.environ["PATH"] if path is None else path
    assert MAKE
    return subprocess.run([MAKE, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def fresh(root: Path, tmp_path: Path) -> Path:
    """What a fresh clone holds of what `make setup` reads; no environment yet."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(root / name, tmp_path)
    return tmp_path


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
    (folder / name).chmod(0o755)
    return folder


def test_help_lists_every_documented_target_and_is_the_default(root: Path) -> None:
    text = (root / "Makefile").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^([\w-]+):.*?## (.+)$", text, flags=re.MULTILINE))
    assert {"help", "run", "setup", "test", "lint"} <= set(documented)
    shown = make(root).stdout
    assert shown == make(root, "help").stdout
    assert dict(line.split(maxsplit=1) for line in shown.splitlines()) == documented


def test_every_target_without_a_file_is_phony(root: Path) -> None:
    text = (root / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", text, flags=re.MULTILINE)
    assert phony
    assert set(re.findall(r"^([a-z-]+):", text, flags=re.MULTILINE)) == set(phony[1].split())


@pytest.mark.parametrize("target", ["run", "setup", "test", "lint"])
def test_a_missing_python_is_named_with_what_to_install(fresh: Path, target: str) -> None:
    ended = make(fresh, "PYTHON=python-that-is-missing", target)
    assert ended.returncode != 0
    assert "python-that-is-missing is missing -> install Python 3.11 to 3.13" in ended.stdout
    assert "not found" not in ended.stderr
    assert not (fresh / ".venv").exists()


@pytest.mark.parametrize(("version", "fits"), [("3.9.2", False), ("3.14.0", False), ("3.12.1", True)])
def test_a_python_that_does_not_fit_is_named_with_its_version(fresh: Path, version: str, fits: bool) -> None:
    """The check itself runs in a real Python that is told another version."""
    release = tuple(map(int, version.split(".")))
    script = f'''
    if [ "$1" = --version ]; then echo "Python {version}"; exit; fi
    if [ "$1" != -c ]; then echo "went on with $*"; exit 1; fi
    exec python3 -c "import sys; sys.version_info = {release}; $2"'''
    folder = program(fresh / "bin", "python-fake", script)
    ended = make(fresh, "PYTHON=python-fake", "run", path=f"{folder}:{os.environ['PATH']}")
    assert ended.returncode != 0
    complaint = f"Python {version} does not fit -> make PYTHON=python3.12 run (3.11 to 3.13)"
    assert (complaint in ended.stdout) == (not fits)
    assert ("went on with -m venv .venv" in ended.stdout) == fits


def test_a_missing_git_is_named(fresh: Path) -> None:
    (fresh / "empty").mkdir()
    ended = make(fresh, "run", path=str(fresh / "empty"))
    assert ended.returncode != 0
    assert "git is missing -> install it" in ended.stdout


def test_python_without_venv_is_told_what_to_install(fresh: Path) -> None:
    folder = program(fresh / "bin", "python-fake", 'case "$2" in *ensurepip*) exit 1;; *) exit 0;; esac')
    ended = make(fresh, "PYTHON=python-fake", "setup", path=f"{folder}:{os.environ['PATH']}")
    assert ended.returncode != 0
    assert "venv module is missing -> apt install python3-venv" in ended.stdout
