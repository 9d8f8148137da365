"""The wheel: it has the files of a project, and a project made from it runs where no checkout is."""

import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fresh import PROGRAMS, Fresh
from pipeline.clone import ran
from tree import PLUGINS, PROFILES, copy_project

from chainforge.bundle import COPIED, USED

MakeOnce = Callable[[str, Callable[[Path], None]], Path]
BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]  # setuptools writes its own arguments there
build_meta.build_wheel(folder)
build_meta.build_sdist(folder)
"""


@pytest.fixture(scope="session")
def built(made_once: MakeOnce) -> Path:
    """A folder with wheel and sdist of the project, and `source`, the copy that they were built from."""

    def build(folder: Path) -> None:
        copy_project(folder / "source")
        command = [sys.executable, "-c", BUILD, str(folder)]
        ended = subprocess.run(command, cwd=folder / "source", capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr[-3000:]

    return made_once("built", build)


@pytest.fixture(scope="session")
def installed(built: Path, made_once: MakeOnce) -> Path:
    """An environment with the wheel. It sees the libraries of this one, but runs none of its .pth files: so
    nothing here finds the checkout."""

    def install(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        (wheel,) = built.glob("*.whl")
        offline = ("--no-index", "--no-deps", "--quiet", "--target", str(site))
        subprocess.run([sys.executable, "-m", "pip", "install", *offline, str(wheel)], check=True)
        (site / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        for name in ("dvc", "chainforge"):
            (folder / "bin" / name).write_text(f"#!/bin/sh\nexec {folder}/bin/python {PROGRAMS[name]}\n")
            (folder / "bin" / name).chmod(0o755)

    return made_once("installed", install)


@pytest.fixture
def own(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fresh:
    """A project of profile smoke, made from the wheel in an empty folder."""
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "T")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "t@example.org")
    command = [str(installed / "bin/chainforge"), "init", "mine", "--profile", "smoke"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    return Fresh(tmp_path / "mine", installed)


@pytest.mark.slow
def test_wheel_and_sdist_have_the_files_of_a_project_and_the_wheel_nothing_but_the_package(
    built: Path,
) -> None:
    source = built / "source"
    bundled = {p.relative_to(source).as_posix() for one in (*COPIED, *USED) for p in source.glob(one)}
    assert {"dvc.yaml", "stages/lock.py", ".dvc/config", "requirements.lock"} <= bundled
    assert {f"plugins/{name}.py" for name in PLUGINS} <= bundled
    assert {f"profiles/{name}.yaml" for name in PROFILES} <= bundled
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if ".dist-info/" not in name}
        entry_points = opened.read(next(n for n in opened.namelist() if n.endswith("entry_points.txt")))
    package = {p.relative_to(source).as_posix() for p in (source / "chainforge").rglob("*") if p.is_file()}
    assert names == package | {f"chainforge/bundled/{name}" for name in bundled}
    assert b"[pipx.run]\nchainforge-r1 = chainforge.cli:cli" in entry_points
    with tarfile.open(sdist) as packed:
        there = {name.partition("/")[2] for name in packed.getnames()}
    assert bundled | package | {"setup.py", "pyproject.toml", "LICENSE"} <= there


@pytest.mark.slow
def test_a_project_made_from_the_wheel_runs_and_a_later_version_of_a_step_runs_again(
    own: Fresh, built: Path, tmp_path: Path
) -> None:
    assert "site-packages" in own.run("python -c 'import chainforge; print(chainforge.__file__)'")
    assert ran(own.run("dvc repro collect_cot")) == ["lock", "prompts@reasoning", "collect_cot"]
    assert '"source": "bundled/prompts_procedural.py"' in (own.folder / "plugins.lock.json").read_text()
    assert "nothing to change" in own.run("chainforge upgrade --apply")
    assert "5 passed" in own.run("python -m pytest -q -p no:cacheprovider tests")
    later = tmp_path / "later"
    with zipfile.ZipFile(next(built.glob("*.whl"))) as opened:
        opened.extractall(later)
    loop = later / "chainforge/loops/collect.py"
    loop.write_text(loop.read_text(encoding="utf-8") + "\nLATER = 1\n", encoding="utf-8")
    assert ran(own.run(f"PYTHONPATH={later} dvc repro collect_cot")) == ["lock", "collect_cot"]


@pytest.mark.long
def test_the_whole_recipe_runs_from_an_empty_folder(own: Fresh) -> None:
    own.run("chainforge repro")
    table = own.run("chainforge results")
    for checkpoint in ("qwen_sft_ckpt", "qwen_rl_ckpt_final", "qwen_distilled_student"):
        assert table.count(f"\n{checkpoint} ") == 2
    assert "up to date" in own.run("dvc status report")
    assert own.run("git status --short -- stages plugins profiles dvc.yaml params.yaml") == ""
