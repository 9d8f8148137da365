"""The whole pipeline at its smallest, run once for all these tests."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from clone import Clone, copy_clone, make_clone, ran


@dataclass(frozen=True)
class Finished:
    """A clone in which `dvc repro` ran to the end, and the steps that it ran."""

    clone: Clone
    steps: tuple[str, ...]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Finished:
    """Look, but do not touch."""
    clone = make_clone(root, tmp_path_factory.mktemp("finished"))
    return Finished(clone, tuple(ran(clone.run("dvc", "repro"))))


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Clone:
    """A finished clone of one's own, to change."""
    return copy_clone(finished.clone, tmp_path / "copy")
