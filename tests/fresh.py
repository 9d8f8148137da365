"""A project with an environment of its own: packages can be installed into it, offline."""

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from pipeline.clone import AUTHOR, environment
from tree import copy_project

PROGRAMS = {
    "pip": '-m pip "$@" --no-index --no-deps --no-build-isolation --quiet',
    "dvc": '-m dvc "$@"',
    "chainforge": "-c 'from chainforge.cli import cli; cli()' \"$@\"",
}


@dataclass(frozen=True)
class Fresh:
    """A folder, and the environment that is active in it."""

    folder: Path
    environment: Path

    def run(self, command: str, fails: bool = False) -> str:
        """Run a line of shell here; its output, stderr included."""
        env = environment() | {"PATH": f"{self.environment / 'bin'}:{os.environ['PATH']}"}
        ended = subprocess.run(
            ["bash", "-ec", command],
            cwd=self.folder,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert (ended.returncode != 0) == fails, ended.stdout[-5000:]
        return ended.stdout

    def write(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text, encoding="utf-8")


def make_environment(folder: Path) -> Path:
    """An environment that sees all packages of this one; what is installed there stays there."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    here = sysconfig.get_path("purelib")
    (site / "parent.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    for name, arguments in PROGRAMS.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\nexec {folder}/bin/python {arguments}\n")
        (folder / "bin" / name).chmod(0o755)
    return folder


def make_project(folder: Path) -> Fresh:
    """A committed copy of the project, and an environment."""
    fresh = Fresh(folder / "project", make_environment(folder / "environment"))
    fresh.folder.mkdir()
    copy_project(fresh.folder)
    fresh.run("git init --quiet && git add --all")
    fresh.run(f"git {' '.join(AUTHOR)} commit --quiet --message start")
    return fresh
