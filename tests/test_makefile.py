"""`make` on a machine that lacks something says what, and what to do about it."""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tree import ROOT

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
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-dev.lock"):
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


LOCKS = ("requirements.lock", "requirements-dev.lock")
SAYS_WHAT_IT_IS_ASKED = """
case "$*" in
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python;;
  "-m pip config list") echo "$PIP_SAYS";;
  "-m pip"*) echo "${@:3}" >>asked;;
  *"version_info"*|*"ensurepip"*) ;;
  *) exit 1;;
esac"""


@pytest.mark.dear
@pytest.mark.parametrize(
    ("config", "arguments", "checked"),
    [
        ("", (), True),
        ("global.timeout='180'\nglobal.index-url='https://pypi.org/simple'", (), True),
        ("global.index-url='https://mirror.example/simple'", (), False),
        ("global.extra-index-url='https://download.pytorch.org/whl/cpu'", (), False),
        (":env:.find-links='/opt/wheels'", (), False),
        ("", ("PIP_ARGS=--extra-index-url https://download.pytorch.org/whl/cpu",), False),
    ],
)
def test_digests_are_checked_where_the_index_is_the_public_one_alone(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, config: str, arguments: tuple[str, ...], checked: bool
) -> None:
    folder = program(fresh / "bin", "python-fake", SAYS_WHAT_IT_IS_ASKED)
    monkeypatch.setenv("PIP_SAYS", config)
    ended = make(
        fresh, "PYTHON=python-fake", *arguments, ".venv/.dev-ready", path=f"{folder}:{os.environ['PATH']}"
    )
    assert ended.returncode == 0, ended.stderr
    asked = (fresh / "asked").read_text().splitlines()
    if checked:
        assert asked == [
            "install --quiet --require-hashes -r requirements.lock",
            "install --quiet --no-deps --no-build-isolation -e .",
            "install --quiet --require-hashes -r requirements.lock -r requirements-dev.lock",
        ]
    else:
        assert all("--require-hashes" not in line for line in asked)
        assert [line.split("-c ")[1] for line in asked[1:]] == [
            ".venv/constraints.txt -e .",
            ".venv/constraints.txt -e .[dev]",
        ]
        constraints = (fresh / ".venv/constraints.txt").read_text().splitlines()
        assert len(constraints) == len({name for name, _, _ in pins()})
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in constraints)


def pins() -> Iterator[tuple[str, str, list[str]]]:
    """Name, version and digests of each release in the locks."""
    for lock in LOCKS:
        for name, version, more in re.findall(
            r"^([\w.-]+)==(\S+)(.*\n(?: +--hash=.*\n)*)", (ROOT / lock).read_text(), re.MULTILINE
        ):
            yield name, version, re.findall(r"--hash=sha256:([0-9a-f]{64})", more)


def test_every_pin_has_digests_and_is_there_once() -> None:
    found = list(pins())
    assert len(found) > 150
    assert all(digests for _, _, digests in found)
    assert len({name for name, _, _ in found}) == len(found)
    lines = [line for lock in LOCKS for line in (ROOT / lock).read_text().splitlines()]
    assert len([line for line in lines if line[0] not in " #"]) == len(found)


@pytest.mark.parametrize(("lock", "extras"), [(LOCKS[:1], []), (LOCKS, ["dev"])])
def test_the_locks_have_what_the_project_asks_for(lock: tuple[str, ...], extras: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = {name: version for name, version, _ in pins()}
    text = "".join((ROOT / name).read_text() for name in lock)
    groups = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    for wanted in (Requirement(line) for group in groups for line in group):
        name = canonicalize_name(wanted.name)
        assert f"\n{name}==" in text, name
        assert versions[name] in wanted.specifier, name
