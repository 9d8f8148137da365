"""How many steps `chainforge repro` runs at once when nobody says so."""

import sys
from pathlib import Path

import pytest

from chainforge.cli.repro import room_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="on Linux only")


@pytest.mark.dear
@pytest.mark.parametrize(
    ("cores", "old", "new", "jobs"),
    [
        (2, "threads: 1", "threads: 1", 2),
        (1, "threads: 1", "threads: 1", 1),
        (2, "threads: 1", "threads: 2", 1),
        (64, "threads: 1", "threads: 2", 2),
        (2, "processes: 1", "processes: 2", 1),
        (64, "processes: 1", "processes: auto", 1),
        (64, "threads: 1", "threads: many", 1),
    ],
)
def test_there_are_cores_for_all_of_them(
    cores: int, old: str, new: str, jobs: int, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = project / "params.yaml"
    text = params.read_text()
    assert old in text
    params.write_text(text.replace("device: auto", "device: cpu").replace(old, new))
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: set(range(cores)))
    assert room_for() == jobs
