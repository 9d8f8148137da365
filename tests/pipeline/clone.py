"""A clone of the project as it is, committed or not, and DVC run in it as a user does."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from tree import copy_project

BIN = Path(sys.executable).parent
PATH = f"{Path(__file__).with_name('bin')}:{BIN}:{os.environ['PATH']}"
WARM: list[
    str
] = []  # folders for PATH whose `python` runs a step without importing torch again: run/warm_start.py
FOREIGN = ("PYTHON", "PYTEST_", "DVC_", "GIT_", "CHAINFORGE_", "TORCHINDUCTOR_")  # the last: torch sets it
LIVELY = '''"""Reward `lively`: differs between completions of a model that can do nothing yet."""
import chainforge as cf

def lively(*, completions, **_):
    return [len(text) % 7 / 7 for text in completions]

@cf.hookimpl
def register_rewards(register):
    register("lively", lively)
'''
AUTHOR = ("-c", "user.name=Test", "-c", "user.email=test@example.org")


def environment() -> dict[str, str]:
    """What a user's shell has after `source .venv/bin/activate`: nothing of this test run."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    return kept | {
        "PATH": PATH,
        "DVC_NO_ANALYTICS": "1",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
    }


@dataclass(frozen=True)
class Clone:
    """One folder with the whole project, and the folders where its commands are looked for first."""

    folder: Path
    path: tuple[str, ...] = ()

    def run(self, *command: str, fails: bool = False) -> str:
        """Run a command here; its output, stderr included. Packages in `installed/` are found."""
        ended = subprocess.run(
            command,
            cwd=self.folder,
            env=environment()
            | {"PATH": ":".join([*self.path, *WARM, PATH]), "PYTHONPATH": str(self.folder / "installed")},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert (ended.returncode != 0) == fails, ended.stdout[-5000:]
        return ended.stdout

    def repro(self, *targets: str) -> list[str]:
        """`dvc repro`: the steps that really ran, in order."""
        return ran(self.run("dvc", "repro", *targets))

    def commit(self, message: str) -> None:
        """Commit everything that git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", *AUTHOR, "commit", "--quiet", "--message", message)

    def sha256(self, *folders: str) -> dict[str, str]:
        """Digest of every file below the folders, by path."""
        files = (path for top in folders for path in (self.folder / top).rglob("*") if path.is_file())
        return {str(f.relative_to(self.folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a piece of text that occurs once."""
        text = (self.folder / path).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{path} has {old!r} {text.count(old)} times"
        (self.folder / path).unlink()  # other clones may have a link to it
        (self.folder / path).write_text(text.replace(old, new), encoding="utf-8")

    def put(self, dotted: str, value: object) -> None:
        """Change one setting of params.yaml."""
        with self._params(dotted) as (node, leaf):
            node[leaf] = value

    def take_out(self, dotted: str) -> None:
        """Remove one setting, or a whole section, from params.yaml."""
        with self._params(dotted) as (node, leaf):
            del node[leaf]

    @contextmanager
    def _params(self, dotted: str) -> Iterator[tuple[Any, str]]:
        """The mapping that has this key, and its last part; changes are written back."""
        yaml = YAML()
        params = yaml.load((self.folder / "params.yaml").read_text(encoding="utf-8"))
        *path, leaf = dotted.split(".")
        node = params
        for key in path:
            node = node[key]
        assert leaf in node
        yield node, leaf
        with (self.folder / "params.yaml").open("w", encoding="utf-8") as file:
            yaml.dump(params, file)


CODE = ("chainforge/", ".dvc/tmp/chainforge-code/")  # who changes a file there makes it anew


@dataclass(frozen=True)
class Finished:
    """A clone in which `dvc repro` ran to the end, and the steps that it ran."""

    clone: Clone
    steps: tuple[str, ...]


def ran(output: str) -> list[str]:
    """The steps that DVC says it ran."""
    return re.findall(r"^Running stage '([^']+)'", output, flags=re.MULTILINE)


def make_clone(folder: Path, profile: str = "smoke") -> Clone:
    """A git repository with one commit, a profile active, and a reward that gives RL a gradient."""
    copy_project(folder, profile=profile)
    clone = Clone(folder)
    clone.run("git", "init", "--quiet")
    (folder / "plugins/reward_lively.py").write_text(LIVELY, encoding="utf-8")
    for step in ("grpo_reasoning", "grpo_final"):
        clone.put(f"{step}.rewards", {"correct": 1.0, "format": 0.2, "lively": 1.0})
    clone.commit("as it is")
    clone.run("git", "repack", "-adq")  # one file in place of hundreds: clones are copied often
    return clone


def copy_clone(clone: Clone, folder: Path) -> Clone:
    """A copy with the same results and the same cache. Code, which is most files, is linked."""

    def copy(source: str, target: str) -> None:
        is_code = source.removeprefix(f"{clone.folder}/").startswith(CODE)
        (os.link if is_code else shutil.copy2)(source, target)

    shutil.copytree(clone.folder, folder, symlinks=True, copy_function=copy)
    return replace(clone, folder=folder)


def fake_environment(folder: Path) -> None:
    """A .venv that `make setup` believes to be ready: its programs are those of this test run."""
    (folder / ".venv").mkdir()
    (folder / ".venv/bin").symlink_to(BIN)
    for stamp in (".python", "constraints.txt", ".run-ready"):
        (folder / ".venv" / stamp).touch()
