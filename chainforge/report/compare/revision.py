"""One run: a DVC experiment, a git revision, or the files of the workspace. Nothing is checked out."""

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from chainforge.config.yaml import parse_mapping
from chainforge.errors import ChainForgeError
from chainforge.report.compare.problems import Answers, Row
from chainforge.report.compare.settings import LOCK, outdated_steps, value_of
from chainforge.report.evaluations import evaluation_step, rows_file
from chainforge.report.shape import check_shape

WORKSPACE = "workspace"


class File(BaseModel):
    """What DVC has of a file: an output or a dependency."""

    path: str
    md5: str | None = None


class Recorded(BaseModel):
    """What DVC has of a step: an entry of dvc.lock."""

    outs: list[File] = []
    deps: list[File] = []
    params: dict[str, dict[str, Any]] = {}


class Revision:
    """Settings and evaluations of one run. Raises ChainForgeError if there is no such revision."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._git = None if name == WORKSPACE else _open(name)

    def close(self) -> None:
        """Let go of the repository."""
        if self._git is not None:
            self._git.repo.close()

    @cached_property
    def params(self) -> Mapping[str, Any]:
        """params.yaml."""
        return self._yaml("params.yaml")

    @cached_property
    def lock(self) -> Mapping[str, Any]:
        """plugins.lock.json: which code and plugins each step uses."""
        return self._yaml(LOCK)

    @cached_property
    def recorded(self) -> Mapping[str, Any]:
        """dvc.lock: what DVC has of this run."""
        return self._yaml("dvc.lock")

    @cached_property
    def cells(self) -> list[tuple[str, str]]:
        """(checkpoint, bench) of every evaluation, in the order of the recipe."""
        made = {out.path for stage in self._stages.values() for out in stage.outs}
        listed = [(c, b) for c in self._checkpoints for b in self._names("benches")]
        found = [(c, b) for c, b in listed if rows_path(c, b) in made]
        if not found:
            raise ChainForgeError(f"{self.name} has no evaluations: {self._why()}", self._fix())
        return found

    @cached_property
    def outdated(self) -> set[tuple[str, str]]:
        """The cells whose answers are not those of the revision's own settings."""
        old = outdated_steps(self.recorded, self.params, self.lock)
        return {(c, b) for c, b in self.cells if evaluation_step(c, b) in old}

    def answers(self, checkpoint: str, bench: str) -> Answers | None:
        """One cell's answers, or None where this run has no such cell."""
        if (checkpoint, bench) not in self.cells:
            return None
        path = rows_path(checkpoint, bench)
        where = path if self._git is None else f"{path} of {self.name}"
        reward = value_of(self.params, "evaluate.reward")
        if not isinstance(reward, str):
            raise ChainForgeError(
                f"params.yaml of {self.name} has no evaluate.reward", "name the reward there"
            )
        return Answers(self._rows(path, where), reward, where)

    def _rows(self, path: str, where: str) -> Iterator[Row]:
        content = self.read(path)
        if content is None:
            place = "there is no" if self._git is None else "DVC's cache has no"
            raise ChainForgeError(f"{place} {where}", self._restore())
        for number, line in enumerate(content.split(b"\n"), start=1):
            try:
                if line.strip():
                    yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ChainForgeError(
                    f"{where}, line {number}: not JSON: {error}", self._restore()
                ) from error

    @property
    def _stages(self) -> Mapping[str, Recorded]:
        fix = "restore it: git checkout dvc.lock, or dvc repro"
        stages: Mapping[str, Recorded] = check_shape(
            dict[str, Recorded], self.recorded.get("stages") or {}, f"dvc.lock of {self.name}", fix
        )
        return stages

    @property
    def _checkpoints(self) -> list[str]:
        return [*self._names("untouched"), *self._names("checkpoints")]

    def _names(self, section: str) -> list[str]:
        listed = self.params.get(section) or []
        if not isinstance(listed, list | dict) or not all(isinstance(name, str) for name in listed):
            raise ChainForgeError(
                f"params.yaml of {self.name}: {section} is {listed!r:.40}", "list names there"
            )
        return list(listed)

    def _why(self) -> str:
        if self._stages:
            return "no step `evaluate` of it has run"
        return "nothing has run yet" if self._git is None else "there is no dvc.lock in its commit"

    def _fix(self) -> str:
        if self._git is None:
            return "run: dvc repro"
        commit = f"git add dvc.lock {LOCK} && git commit"
        return f"compare with an experiment (dvc exp list -A), or commit after the next run: {commit}"

    def _restore(self) -> str:
        if self._git is None:
            return "run: dvc checkout, or dvc repro"
        return f"dvc exp apply {self.name} && dvc repro makes it again; where a remote has it: dvc fetch -A"

    def _yaml(self, path: str) -> Mapping[str, Any]:
        content = self.read(path)
        return parse_mapping(content, f"{path} of {self.name}") if content else {}

    def read(self, path: str) -> bytes | None:
        """The content of a file of git or DVC, or None."""
        try:
            if self._git is None:
                return Path(path).read_bytes()
            with self._git.open(path, "rb") as file:
                content: bytes = file.read()
                return content
        except (FileNotFoundError, NotADirectoryError):
            return None


def rows_path(checkpoint: str, bench: str) -> str:
    """Where a checkpoint's answers on a bench are, as dvc.lock has it."""
    return rows_file(Path(), checkpoint, bench).as_posix()


def _open(name: str) -> Any:
    """The files of a revision, DVC's outputs among them; from the cache, or else a remote."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        files = DVCFileSystem(rev=name)
        files.repo.get_rev()  # it opens late
        return files
    except (DvcException, SCMError) as error:
        raise ChainForgeError(
            f"there is no experiment or git revision {name!r}: {error}",
            f"dvc exp list -A and git log name them, after they have run; {WORKSPACE!r} is what lies here",
        ) from error
