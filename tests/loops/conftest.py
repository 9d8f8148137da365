"""Loops write to logs/, plots/ and metrics/ of the folder that they run in."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # logs/, plots/ and metrics/ are relative
