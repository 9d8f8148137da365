"""What every test shares: quiet Hypothesis, the project's folder, and what is made once for all workers."""

import gc
import os
import signal
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings
from ruamel.yaml import YAML
from tree import copy_project

from chainforge.project import profiles

gc.disable()  # until all tests are collected: of what they import nothing can be freed

settings.register_profile("default", deadline=None)  # torch's first call breaks the 200 ms default
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:  # as `nohup make test &` leaves it
        signal.signal(number, usual)

parse = YAML.load
parsed: dict[tuple[object, ...], Any] = {}


def parse_once(self: YAML, stream: object) -> Any:
    """Each long text once per worker: many tests read the same settings, and ruamel is slow."""
    if not isinstance(stream, str | bytes) or len(stream) < 1000 or not self.pure:
        return parse(self, stream)
    key = (stream, *self.typ, self.Constructor)
    if key not in parsed:
        parsed[key] = parse(self, stream)
    return deepcopy(parsed[key])


YAML.load = parse_once  # type: ignore[method-assign]
compose = profiles.compose
composed: dict[tuple[object, ...], str] = {}


def compose_once(name: str) -> str:
    """The same of whole profiles, while no file that they are made from changes."""
    read = (profiles.GRAPH, *profiles.PROFILES.glob("*.yaml"))
    files = ((path.name, path.read_bytes()) for path in read if path.is_file())
    key = (name, *sorted(files))
    if key not in composed:
        composed[key] = compose(name)
    return composed[key]


profiles.compose = compose_once

MakeOnce = Callable[[str, Callable[[Path], None]], Path]


def pytest_collection_finish() -> None:
    """The modules of all tests are a million objects, which each collection would look through again."""
    gc.collect()
    gc.freeze()
    gc.enable()


FIRST = ("test_cache.py", "test_rebuild.py")  # one makes the pipeline that others share, one needs none of it
ALL_BUT_THE_LAST = {"dear": pytest.mark.slow, "dearest": pytest.mark.long}  # of the cases of such a test


def take_one_of_the_dear(items: list[pytest.Item]) -> None:
    """Of a test with many dear cases the quick suite has the last, and of the dearest `make test`."""
    seen = set()
    for item in reversed(items):
        for name, mark in ALL_BUT_THE_LAST.items():
            if item.get_closest_marker(name) and not item.get_closest_marker("long"):
                test = item.nodeid.partition("[")[0]
                if test in seen:
                    item.add_marker(mark)
                seen.add(test)


@pytest.hookimpl(tryfirst=True)  # before what is marked is chosen from
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The pipeline's files come first: they take longest, and none should be left alone at the end."""
    take_one_of_the_dear(items)
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        absent = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(absent)
    items.sort(key=lambda item: (item.path.name not in FIRST, "pipeline" not in item.path.parts))


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, with the default settings and nothing else. Look, but do not touch."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    return folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Make a folder of this name once, however many workers pytest has, and give it to all of them."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def once(name: str, make: Callable[[Path], None]) -> Path:
        folder = shared / name
        with FileLock(shared / f"{name}.lock"):
            if not (shared / f"{name}.made").exists():
                make(folder)
                (shared / f"{name}.made").touch()
        return folder

    return once


@pytest.fixture(autouse=True)
def plugins_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No interpreter is started to try plugins in: tests/test_plugin_trials.py is about that."""
    from chainforge.plugins import load

    monkeypatch.setattr(load, "try_plugins", lambda found: {})
