"""A server as a process that ends with the step, whatever ends the step."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from chainforge.defuse import defuse
from chainforge.errors import ChainForgeError
from chainforge.rollout.vllm import guard

INSTALL = (
    "install vLLM in an environment of its own, as docs/vllm.md says, and name its program in "
    "runtime.vllm.command"
)
CLOSING_S = 2 * guard.GRACE_S + 5
ERROR = re.compile(r"(?:^|\s)((?:\w+\.)*\w*(?:Error|Exception|Interrupt): .*|vllm serve: error: .*)")
SAYS_NOTHING = "Engine core initialization failed"  # "see root cause above"
SHOWN = 3  # lines of the log, where none looks like an error


class ServerProcess:
    """A program that serves, with its log. It dies with this process: see `guard`."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        theirs, self._hold = os.pipe()
        started = [sys.executable, "-I", guard.__file__, str(theirs), str(os.getpid()), *command]
        with log.open("wb") as said:
            self._guard = subprocess.Popen(
                started,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                pass_fds=[theirs],
                env=dict(environment),
                start_new_session=True,
            )
        os.close(theirs)

    def ending(self, within_s: float = 0.0) -> str | None:
        """How it ended: "exit code 1", "signal 9 (SIGKILL)"; None while it runs, `within_s` seconds on."""
        try:
            code = self._guard.wait(within_s)
        except subprocess.TimeoutExpired:
            return None
        number = code - 128 if code > 128 else -code
        named = next((known.name for known in signal.Signals if known == number), None)
        return f"signal {number} ({named})" if named else f"exit code {code}"

    def check_runs(self, problem: str, fix: str, within_s: float = 0.0) -> None:
        """Raise ChainForgeError with this problem where it has ended, or ends within that time."""
        if ending := self.ending(within_s):
            said = self.last_words() or "it said nothing"
            raise ChainForgeError(f"{problem} ({ending}): {said}", f"its log: {self.log}; {fix}")

    def last_words(self) -> str:
        """What its log says of its end, in a line or a few."""
        with suppress(OSError):
            lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
            errors = [match[1].strip() for line in lines[-400:] if (match := ERROR.search(line))]
            told = [error for error in errors if SAYS_NOTHING not in error]
            return defuse(" / ".join(told[-1:] or [line.strip() for line in lines[-SHOWN:]])[:600])
        return ""

    def let_go(self) -> None:
        """Let it end, with all that it has started."""
        if self._hold >= 0:
            os.close(self._hold)
            self._hold = -1

    def close(self) -> None:
        """Let it end, and wait until it has."""
        self.let_go()
        try:
            self._guard.wait(CLOSING_S)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()


def close_all(processes: Sequence[ServerProcess]) -> None:
    """Let all of them end at once, and wait until they have."""
    for process in processes:
        process.let_go()
    for process in processes:
        process.close()


def find_program(command: str) -> str:
    """The file to start. Raises ChainForgeError where there is none."""
    found = shutil.which(os.path.expanduser(command))
    if found is None:
        raise ChainForgeError(f"there is no program {command!r} to start vLLM with", INSTALL)
    return os.path.abspath(found)


def free_port() -> int:
    """One of this machine that nobody listens on."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])
