"""The process that steps are forked from, under `chainforge repro`; warm_start.py runs it as a plain file.

For each step that warm_client.py asks for, it forks a process that forks the step, waits for it, and tells
how it ended. Only libraries are imported here. ChainForge and the stage scripts are those of the step's
folder, and are imported by the step, as `python -m stages.VERB STEP` does. Importing torch does not start
CUDA.
"""

import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType, ModuleType
from typing import Any

Request = Mapping[str, Any]  # of warm_client.py
HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
# A step may have these as it likes: nothing reads them before the step does. The shell that dvc starts for a
# step sets or takes out all but the first two: PS1 is exported by .venv/bin/activate.
FREE = ("PATH", "PYTHONPATH", "PWD", "OLDPWD", "SHLVL", "_", "PS1", "PS2")
FREE_PREFIXES = ("DVC_", "CHAINFORGE_")
TOGETHER_S = 0.05  # a signal to a whole group has reached all of it by then
RECENTLY_S = 1.0
PR_SET_PDEATHSIG = 1


def answer_all(listening: socket.socket, parent: int, libraries: Sequence[str]) -> Request | None:
    """Answer until the parent ends. Returns a request in the process of a step, and None at the end."""
    started_with = dict(os.environ)
    for number in HEARD:  # a terminal's Ctrl-C is for the steps; this ends after dvc
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for a step
    while True:
        waiting: list[Any] = [listening, parent]
        ready, _, _ = select.select(waiting, [], [])
        if parent in ready:
            return None
        client, _ = listening.accept()
        with client:
            if libraries:  # now, and not before: a run in which all is up to date needs none of them
                gc.disable()  # of what is imported nothing can be freed
                for name in libraries:
                    importlib.import_module(name)
                gc.freeze()  # what is here already is not looked through again in every step
                gc.enable()
                libraries = ()
            if not os.fork():
                listening.close()
                return run_for(client, parent, started_with)


def run_for(client: socket.socket, parent: int, started_with: Mapping[str, str]) -> Request:
    """Fork the step, and stay with it to its end. Returns in the process of the step only."""
    heard: dict[int, float] = {}

    def note(number: int, _frame: FrameType | None) -> None:
        heard[number] = time.monotonic()

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(client, 1, 3)
    with client.makefile() as asked:
        request: Request = json.loads(asked.readline())
    waiting: list[Any] = [client, parent]
    is_left = select.select(waiting, [], [], 0)[0]
    if is_left or _fixed(request["environment"]) != _fixed(started_with):
        os._exit(0)  # no answer: the client starts the usual interpreter
    client.sendall(b"+")
    if not client.recv(1):
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    for number in HEARD:
        signal.signal(number, note)
    while signal.sigtimedwait(HEARD, 0):  # what came before there was a step, it has not had
        pass
    waiter = os.getpid()
    step = os.fork()
    if step == 0:
        client.close()
        os.close(parent)
        _inherit(request, files, waiter)
        return request
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
    for file in files:
        os.close(file)
    _accompany(step, client, parent, heard)
    code = os.waitstatus_to_exitcode(os.waitpid(step, 0)[1])
    try:
        client.sendall(f"{code}\n".encode())
    finally:
        os._exit(0)


def _accompany(step: int, client: socket.socket, parent: int, heard: dict[int, float]) -> None:
    """Until the step has ended: hand on what the client was sent; do not let it outlive client and dvc."""
    ended = os.pidfd_open(step)
    waiting: list[Any] = [client, parent, ended]
    while ended not in (ready := select.select(waiting, [], [])[0]):
        time.sleep(TOGETHER_S)
        if client in ready:
            try:
                number = int.from_bytes(client.recv(1)) or int(signal.SIGKILL)
            except ConnectionError:
                number = int(signal.SIGKILL)
            # What has just come here as well was for the whole process group, and the step has had it.
            if time.monotonic() - heard.get(number, -RECENTLY_S) >= RECENTLY_S:
                os.kill(step, number)
                heard.setdefault(number, -RECENTLY_S)
            if number == signal.SIGKILL:
                waiting.remove(client)
        if parent in ready:  # the step saves its work and stops, if it was not asked to before
            waiting.remove(parent)
            if not heard:
                os.kill(step, signal.SIGTERM)


def _inherit(request: Request, files: Sequence[int], waiter: int) -> None:
    """In the step: what a process has before Python starts in it."""
    for number in HEARD:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for ignored in request["ignored"]:
        signal.signal(ignored, signal.SIG_IGN)
    for stream, file in enumerate(files):
        os.dup2(file, stream)
        os.close(file)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]  # it was made for /dev/null
    # Whoever waits for the step is killed: nobody would be told how it ends.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != waiter:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)


def become(request: Request, libraries_path: Sequence[str]) -> None:
    """Be what `python -m MODULE ARGUMENT ...` is."""
    arguments, environment = request["arguments"], request["environment"]
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(environment)
    here = [] if environment.get("PYTHONSAFEPATH") else [os.getcwd()]
    sys.path[:] = [*here, *_python_path(environment), *libraries_path]
    sys.argv, sys.orig_argv = ["-m", *arguments[2:]], ["python", *arguments]
    sys.modules["__main__"] = ModuleType("__main__")
    runpy._run_module_as_main(arguments[1])  # type: ignore[attr-defined]  # what `python -m` calls


def _fixed(environment: Mapping[str, str]) -> dict[str, str]:
    """What must be as it was when this process started.

    Not names that no variable of a shell can have: bash exports its functions under them, others drop them.
    """
    return {
        name: value
        for name, value in environment.items()
        if name.isidentifier() and name not in FREE and not name.startswith(FREE_PREFIXES)
    }


def _python_path(environment: Mapping[str, str]) -> list[str]:
    path = environment.get("PYTHONPATH", "")
    return [os.path.abspath(entry) for entry in path.split(":")] if path else []


def main(number: str, parent: str, folder: str, *libraries: str) -> Request | None:
    """Serve, and leave nothing behind. Returns in the process of a step only."""
    server = os.getpid()
    try:
        watched = os.pidfd_open(int(parent))
        if os.getppid() != int(parent):
            return None
        return answer_all(socket.socket(fileno=int(number)), watched, libraries)
    finally:
        if os.getpid() == server:
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)  # at once: what was imported has nothing to put in order


if __name__ == "__main__":
    itself = sys.modules["__main__"]  # its functions are needed after the step has become __main__
    own = _python_path(os.environ)
    base = [path for path in sys.path if path not in own]
    if step_request := main(*sys.argv[1:]):
        become(step_request, base)  # outside of all that is above: it ends as any interpreter does
