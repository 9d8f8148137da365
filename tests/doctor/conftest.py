"""A project in which a recorded run lies."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tree import ROOT

from chainforge.cli import cli

RUNS = Path(__file__).parent / "runs"
Doctor = Callable[..., Result]


@pytest.fixture
def lay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Go to a project with the files of the recording of that name."""

    def there(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(RUNS / name, folder)
        shutil.copy(ROOT / "dvc.yaml", folder)
        monkeypatch.chdir(folder)
        return folder

    return there


@pytest.fixture
def doctor() -> Doctor:
    """The command, and what it must end with."""

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, ["doctor", *arguments])
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def told(doctor: Doctor) -> Callable[..., dict[str, Any]]:
    """What the command says for programs."""

    def run(*arguments: str, code: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(doctor(*arguments, "--json", code=code).stdout)
        return found

    return run
