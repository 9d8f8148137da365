"""Steps that do not import libraries again: each is forked from one process that has, once per test run.

Only libraries are imported there. ChainForge and the stage scripts are those of the folder that a step runs
in, and are imported by the step, as `python -m stages.VERB STEP` would. `serve` makes a folder for PATH with
a program `python` that sends such commands to that process; every other command is the real interpreter's.
A step that a test kills or interrupts is started without it.
"""

import array
import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

leave = os._exit  # a step forbids itself to call it
VERBS = ("sft", "grpo", "sample", "distill", "evaluate")  # others take no longer to import than to fork
LIBRARIES = ("torch.distributed.tensor", "transformers.models.qwen2.modeling_qwen2")
PROGRAM = """#!/bin/sh
case "$1 $2" in {patterns}) exec {python} -I -S {here} {address} "$@";; esac
exec {python} "$@"
"""


@contextlib.contextmanager
def serve(folder: Path, environment: dict[str, str]) -> Iterator[Path]:
    """A folder for PATH, good for as long as this is open. `folder` has a short name, as sockets need."""
    address = folder / "socket"
    patterns = "|".join(f'"-m stages.{verb}"' for verb in VERBS)
    program = PROGRAM.format(patterns=patterns, python=sys.executable, here=__file__, address=address)
    (folder / "bin").mkdir()
    (folder / "bin/python").write_text(program)
    (folder / "bin/python").chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen()
        command = [sys.executable, __file__, str(listening.fileno())]
        server = subprocess.Popen(
            command, pass_fds=[listening.fileno()], env=environment, stdin=subprocess.PIPE, cwd="/"
        )
    try:
        yield folder / "bin"
    finally:
        server.kill()
        server.communicate()


def ask(address: str, arguments: list[str]) -> int:
    """The client: have a command run with this process's folder, environment, input and outputs."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        passed = array.array("i", [0, 1, 2])
        server.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        server.sendall(json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode() + b"\n")
        with server.makefile() as answer:
            return int(answer.readline() or 1)


def answer_all(listening: socket.socket) -> None:
    """The server: a process per client, which forks the step, waits for it, and tells how it ended."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # what is here already is not looked through again in every step

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while select.select([listening, sys.stdin], [], [])[0] == [listening]:  # stdin ends with the test run
        client, _ = listening.accept()
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listening.close()
            _, files, _, _ = socket.recv_fds(client, 1, 3)
            with client.makefile() as asked:
                arguments, folder, environment = json.loads(asked.readline())
            if not (step := os.fork()):
                client.close()
                become(arguments, folder, environment, files)
            code = os.waitstatus_to_exitcode(os.waitpid(step, 0)[1])
            client.sendall(f"{code}\n".encode())
            leave(0)
        client.close()


def become(arguments: list[str], folder: str, environment: dict[str, str], files: list[int]) -> NoReturn:
    """Be what `python -m MODULE ARGUMENT ...` is."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    found = [path for path in environment.get("PYTHONPATH", "").split(":") if path]
    sys.path[:] = [folder, *found, *sys.path[1:]]  # the first was this file's
    sys.argv = ["-m", *arguments[2:]]
    code = 0
    try:
        runpy._run_module_as_main(arguments[1])  # type: ignore[attr-defined]  # what `python -m` calls
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    leave(code)


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        sys.exit(answer_all(socket.socket(fileno=int(sys.argv[1]))))
    sys.exit(ask(sys.argv[1], sys.argv[2:]))
