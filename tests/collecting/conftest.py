"""What the tests against odd servers share."""

import pytest
from odd_runs import at_home, hurry


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients are quick to make, and waits are short."""
    hurry(monkeypatch)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the project's folder."""
    at_home(monkeypatch)
