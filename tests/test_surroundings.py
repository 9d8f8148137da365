"""The files for other programs, CI, containers, editors, say nothing that the project does not have."""

import json
import re
import tomllib
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet
from ruamel.yaml import YAML
from tree import PROFILES, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = SpecifierSet(PROJECT["requires-python"])
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def parse(name: str) -> Any:
    return json.loads(text(name)) if name.endswith(".json") else YAML(typ="safe", pure=True).load(text(name))


def test_ci_has_all_tests_on_linux_and_the_quick_ones_on_macos() -> None:
    jobs = parse(".github/workflows/ci.yml")["jobs"]
    steps = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert {"make lint", "make docs", "make test"} <= set(steps["linux"])
    assert steps["macos"] == ["make test-quick"]
    assert jobs["linux"]["runs-on"].startswith("ubuntu-")
    assert jobs["macos"]["runs-on"].startswith("macos-")


def test_ci_takes_every_python_that_the_project_does() -> None:
    jobs = parse(".github/workflows/ci.yml")["jobs"]
    tried = jobs["linux"]["strategy"]["matrix"]["python"]
    assert tried == [f"3.{minor}" for minor in range(20) if f"3.{minor}.1" in PYTHONS]


@pytest.mark.parametrize(
    "name",
    [".github/workflows/ci.yml", ".pre-commit-config.yaml", ".devcontainer/devcontainer.json", "Dockerfile"],
)
def test_every_make_target_and_profile_that_they_name_exists(name: str) -> None:
    assert name == "Dockerfile" or parse(name)
    for command in re.findall(r"\bmake ((?:[a-z-]+|[A-Z]+=\S+)(?: [A-Z]+=\S+)*)", text(name)):
        if re.search(rf"(entry|run|&&|\"postCreateCommand\").*make {re.escape(command)}", text(name)):
            target, *variables = command.split()
            assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
            assert {v.removeprefix("PROFILE=") for v in variables} <= set(PROFILES)


def test_the_containers_have_a_python_that_fits() -> None:
    (image,) = re.findall(r":(3\.\d+)-", parse(".devcontainer/devcontainer.json")["image"])
    assert f"{image}.1" in PYTHONS
    assert "ubuntu24.04" in text("Dockerfile")  # whose python3 is 3.12
    assert "3.12.1" in PYTHONS


def test_the_image_runs_as_a_user_and_copies_what_is_there() -> None:
    lines = text("Dockerfile").splitlines()
    copied = [
        word for line in lines if line.startswith("COPY") for word in line.split()[1:-1] if word[0] != "-"
    ]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    assert [line for line in lines if line.startswith("USER")] == ["USER ubuntu"]
    first = {word: number for number, line in reversed(list(enumerate(lines))) for word in line.split()[:1]}
    packages, project = (
        lines.index("COPY requirements.lock /tmp/"),
        lines.index("COPY --chown=ubuntu:ubuntu . ."),
    )
    assert first["FROM"] < packages < project  # a change of the code leaves the layer of the packages


def test_an_image_leaves_out_what_git_ignores() -> None:
    left_out = {line.strip("/") for line in text(".dockerignore").splitlines() if line and line[0] != "#"}
    folders = re.findall(r"^/?([\w.]+)/$", text(".gitignore"), re.MULTILINE)
    assert {"data", "checkpoints", ".venv"} <= set(folders)
    tracked_elsewhere = {"dvc_plots", "__pycache__"}
    assert set(folders) - tracked_elsewhere <= left_out
    assert {".git", ".env"} <= left_out


def test_the_docs_are_built_with_pinned_releases() -> None:
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in PROJECT["optional-dependencies"]["docs"])
