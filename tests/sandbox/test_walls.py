"""The walls themselves: who may start a sandbox, what is said where there is none, its end with its maker."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from chainforge.errors import ChainForgeError
from chainforge.sandbox import Limits, Outcome, bubblewrap, check_sandbox, probe, run_program, run_tests
from chainforge.sandbox.inside import decoded, encoded
from chainforge.sandbox.system_calls import system_call_filter


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="not root: then every test of this folder is this one")
def test_an_ordinary_user_has_the_same_walls() -> None:
    run_program("print(1)")  # what it imports may lie where another user cannot read
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            os.setgroups([])
            os.setgid(12345)
            os.setuid(12345)
            check_sandbox.cache_clear()
            check_sandbox()
            said: object = [run_tests("def f(x): return x", ["assert f(1) == 1"]).kind, os.getuid()]
        except BaseException as error:
            said = repr(error)
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as file:
        assert json.load(file) == ["right", 12345]


SLEEPER = """
from chainforge.sandbox import Limits, run_program
run_program("import time; time.sleep(600)", limits=Limits(wall_s=600.0))
"""


@pytest.mark.slow
def test_a_sandbox_ends_with_its_maker_however_that_ends() -> None:
    maker = subprocess.Popen([sys.executable, "-c", SLEEPER])
    deadline = time.monotonic() + 120
    members: list[psutil.Process] = []
    while len(members) < 3:  # bubblewrap, the first process in the sandbox, the program
        assert time.monotonic() < deadline
        members = psutil.Process(maker.pid).children(recursive=True)
        time.sleep(0.02)
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in members):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_sandbox_that_does_not_start_is_an_error_not_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho bwrap: No permissions to create new namespace >&2\nexit 1\n")
    broken.chmod(0o755)
    for folder in (tmp_path, *tmp_path.parents):  # root's sandboxes are started by nobody
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    monkeypatch.setattr(bubblewrap, "find_tools", lambda: (str(broken), "/usr/bin/python3"))
    for call in (lambda: run_program("print(1)"), lambda: run_tests("f = abs", ["assert f(-1) == 1"])):
        with pytest.raises(ChainForgeError, match="did not start: bwrap: No permissions"):
            call()


def test_walls_that_do_not_hold_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "run_program", lambda *_: Outcome("right", output='["reads /etc", "is root"]'))
    check_sandbox.cache_clear()
    try:
        with pytest.raises(ChainForgeError, match="does not hold: a program in it reads /etc, is root"):
            check_sandbox()
    finally:
        check_sandbox.cache_clear()


def test_a_machine_whose_system_calls_are_not_known_is_refused() -> None:
    assert len(system_call_filter("x86_64")) == len(system_call_filter("aarch64"))
    with pytest.raises(ChainForgeError, match="does not know the system calls of riscv64"):
        system_call_filter("riscv64")


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(10**40), 2.5, float("inf"), "é\ud800", b"\0", [1, [2]], (1, (2,)), {1, 2},
     frozenset("a"), {1: {"a": None}, (1, 2): [3.0]}],
)  # fmt: skip
def test_plain_data_come_back_as_they_were(value: object) -> None:
    back = decoded(json.loads(json.dumps(encoded(value))))
    assert back == value
    assert type(back) is type(value)


def test_limits_are_those_that_are_set() -> None:
    source = "import resource; print(resource.getrlimit(resource.RLIMIT_AS)[0] >> 20)"
    assert run_program(source, limits=Limits(memory_mb=100)).output == "100\n"
