"""A project without a run, small enough for every test to have its own."""

from pathlib import Path

import pytest
from a_project import Run
from click.testing import CliRunner, Result

from chainforge.cli import cli
from chainforge.project.profiles import compose


@pytest.fixture
def project(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real graph, plugins and profiles, with the settings of tiny."""
    folder = tmp_path / "project"
    (folder / "sub" / "deep").mkdir(parents=True)
    monkeypatch.chdir(root)
    (folder / "params.yaml").write_text(compose("tiny"), encoding="utf-8")
    for name in ("dvc.yaml", "plugins"):
        (folder / name).symlink_to(root / name)
    (folder / "profiles").mkdir()
    for path in (root / "profiles").glob("*.yaml"):
        (folder / "profiles" / path.name).write_text(path.read_text())
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run() -> Run:
    """Run a command line; a traceback fails the test."""

    def runs(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, list(arguments))
        assert result.exit_code == code, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        if code not in (0, 2) and not result.stdout:
            assert "\n  -> " in result.stderr
        return result

    return runs
