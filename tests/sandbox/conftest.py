"""Every test of this folder needs bubblewrap: where it cannot run, they are skipped, with what to do."""

from collections.abc import Callable, Iterator

import psutil
import pytest

from chainforge.errors import ChainForgeError
from chainforge.sandbox import bubblewrap, check_sandbox, run

Started = list[psutil.Process]


@pytest.fixture(scope="session", autouse=True)
def _sandbox() -> None:
    try:
        check_sandbox()
    except ChainForgeError as error:
        pytest.skip(f"no sandbox: {error.problem} -> {error.fix}")


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """What was in the sandboxes of a test just before they were ended; afterwards nothing of it may live."""
    seen: Started = []
    end: Callable[..., None] = bubblewrap.end

    def watched(process: "run.Popen[bytes]") -> None:
        if process.poll() is None:
            outer = psutil.Process(process.pid)
            seen.extend([outer, *outer.children(recursive=True)])
        end(process)

    monkeypatch.setattr(run, "end", watched)
    yield seen
    assert [one for one in seen if one.is_running()] == []
