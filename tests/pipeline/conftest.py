"""The whole pipeline at its smallest, run once for all these tests."""

from pathlib import Path

import pytest
from clone import Clone, Finished, copy_clone, make_clone, ran


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Finished:
    """Look, but do not touch."""
    clone = make_clone(root, tmp_path_factory.mktemp("finished"))
    return Finished(clone, tuple(ran(clone.run("dvc", "repro"))))


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Clone:
    """A finished clone of one's own, to change."""
    return copy_clone(finished.clone, tmp_path / "copy")
