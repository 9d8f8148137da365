"""Start a process in a sandbox of bubblewrap, and end it with all that it started.

It has a user id, a network, processes and files of its own: Python and the system's libraries to read, 16 MiB
in /tmp to write, and nothing else; no /proc, no shell, no variable. It works for root, who becomes nobody
first, and for any other user.
"""

import contextlib
import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import psutil

from chainforge.errors import ChainForgeError
from chainforge.sandbox import inside
from chainforge.sandbox.system_calls import system_call_filter

NOBODY = 65534
SCRATCH = 16 << 20  # bytes of /tmp, and of one file
PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3")  # one in somebody's home would show that home
INSTALL = "install it: apt install bubblewrap (dnf, pacman and zypper call it bubblewrap too)"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use: `cpu_s` each of its processes, `wall_s` and `memory_mb` all together."""

    cpu_s: int = 5
    wall_s: float = 15.0
    memory_mb: int = 256
    processes: int = 8


@cache
def find_tools() -> tuple[str, str]:
    """The paths of bubblewrap and of a Python that belongs to the system. Raises ChainForgeError."""
    why = "programs that a model wrote run in a sandbox, or not at all"
    if sys.platform != "linux":
        raise ChainForgeError(f"{why}, and the sandbox needs Linux", "run this on Linux")
    if not (bwrap := shutil.which("bwrap", path=os.environ.get("PATH", "") + ":/usr/bin:/usr/local/bin")):
        raise ChainForgeError(f"{why}, and bubblewrap is not installed", INSTALL)
    if not (python := next(filter(os.path.exists, PYTHONS), None)):
        raise ChainForgeError(
            f"{why}, and there is neither {' nor '.join(PYTHONS)} for it", "apt install python3"
        )
    return bwrap, os.path.realpath(python)


def start(
    role: str,
    *arguments: int,
    limits: Limits,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
) -> "subprocess.Popen[bytes]":
    """Run a function of inside.py in a new sandbox; `arguments` are descriptors that it gets."""
    bwrap, python = find_tools()
    numbers = (*arguments, limits.cpu_s, limits.memory_mb << 20, limits.processes, SCRATCH)
    code = f"{_source()}\n{role}(*{numbers})"
    reading, writing = os.pipe()
    with open(writing, "wb") as file:
        file.write(system_call_filter())
    try:
        return subprocess.Popen(
            [
                bwrap,
                *_walls(python),
                "--seccomp",
                str(reading),
                python,
                "-s",
                "-S",
                "-B",
                "-X",
                "utf8",
                "-c",
                code,
            ],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            pass_fds=[reading, *arguments],
            cwd="/",
            env={},
            **_as_nobody(),
        )
    finally:
        os.close(reading)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End all of a sandbox, whatever is in it. Nothing of it is left when this returns."""
    with contextlib.suppress(psutil.Error):
        for first in psutil.Process(
            process.pid
        ).children():  # pid 1 in there: the kernel ends the others with it
            first.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(2.0)
    process.kill()
    process.wait()


def used_mb(process: "subprocess.Popen[bytes]") -> float:
    """Memory of all processes of a sandbox together."""
    total = 0
    with contextlib.suppress(psutil.Error):
        for member in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += member.memory_info().rss
    return total / (1 << 20)


def complaint(process: "subprocess.Popen[bytes]") -> str | None:
    """Why an ended sandbox never came to run its program; None if it did."""
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)
    said = process.stderr.read(1 << 16) or b""
    process.stderr.close()
    return None if said.endswith(inside.READY) else said.decode(errors="replace").strip() or "it said nothing"


@cache
def _source() -> str:
    """Read once: a process that gives up its rights afterwards may no longer see the file."""
    return inspect.getsource(inside)


@cache
def _walls(python: str) -> tuple[str, ...]:
    walls = ["--unshare-all", "--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    walls += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--ro-bind", python, python]
    for folder in ("/usr/lib", "/usr/lib64", "/lib", "/lib64", *_of_python(python)):
        if os.path.islink(folder):
            walls += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            walls += ["--ro-bind", folder, folder]
    for device in ("/dev/null", "/dev/urandom"):
        walls += ["--dev-bind", device, device]
    # Root itself is in memory, and without a bound on its size.
    walls += ["--size", str(SCRATCH), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]
    environment = {
        "HOME": "/tmp",
        "PYTHONHASHSEED": "0",
        "LD_LIBRARY_PATH": str(Path(python).parents[1] / "lib"),
    }
    for name, value in environment.items():
        walls += ["--setenv", name, value]
    return tuple(walls)


def _of_python(python: str) -> Sequence[str]:
    return ["/usr/local/lib"] if python.startswith("/usr/local/") else []


def _as_nobody() -> dict[str, Any]:
    """Root's processes are under no limit of their number, so they become nobody's."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
