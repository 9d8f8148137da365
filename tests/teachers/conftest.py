"""What the tests of the collector share: a clock that does not wait."""

import asyncio
import os
import random
import time

import pytest
from virtual_time import Clock, at_once, run_on


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Collections run by this clock, and their journals on a disk that takes no time."""
    clock = Clock()
    random.seed(17)
    monkeypatch.setattr(time, "monotonic", clock)
    monkeypatch.setattr(asyncio, "run", run_on(clock))
    monkeypatch.setattr(asyncio, "to_thread", at_once)
    monkeypatch.setattr(os, "fsync", lambda file: None)
    return clock
