"""No step ends without a word: whatever kills its process, two lines are left, and the exit code is not 0."""

import faulthandler
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import IO, NoReturn

from chainforge.containment import Left, farewells, forbid_leaving
from chainforge.errors import ChainForgeError, describe
from chainforge.memory import is_lack_of_memory
from chainforge.outputs import leave_nothing_partial
from chainforge.run.crash import log_of, tell
from chainforge.run.world import this_world

LESS = (
    "choose a smaller model, lower runtime.micro_batch_tokens or runtime.rollout_rows, or give it more "
    "memory (chainforge memory says what a training step needs)"
)
# Reads one word from the step. Where the step is gone without it, says so.
WATCHER = """trap "" INT TERM HUP QUIT
read -r word || { printf '\\n%s\\n' "$1"; [ -s "$2" ] && printf '  -> where it was: %s\\n' "$2"; } >&2"""

MORE = (
    "give it more memory or less to do (runtime.micro_batch_tokens, runtime.rollout_rows), and run the same "
    "command again: it goes on from its last save"
)
LAUNCHER = "CHAINFORGE_LAUNCHER"  # in the environment of a process that our own launcher started
TOLD = 100  # added to the exit code of such a process: it has said why
BEREFT = 2  # exit code of a process that ends because another one was killed, or ended by native code

_watcher: "subprocess.Popen[bytes] | None" = None
_faults: IO[str] | None = None


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, and not a KeyboardInterrupt that a plugin raised."""


def watch_ending(step: str) -> None:
    """Let nothing end this process unsaid. Main thread, once, before anything is imported that can fail."""
    global _watcher
    with suppress(ChainForgeError):  # who runs the step says that the launcher's variables make no sense
        step = this_world().label(step)
    if shell := shutil.which("sh"):
        gone = (
            f"{step}: its process ended without a word: killed, most often for want of memory, or ended by "
            f"native code of a plugin\n  -> {MORE}"
        )
        with suppress(OSError):
            command = [shell, "-c", WATCHER, "sh", gone, str(log_of(step))]
            _watcher = subprocess.Popen(command, stdin=subprocess.PIPE)
    _tell_errors(step)
    forbid_leaving()
    farewells.extend((lambda: end_with(""), leave_nothing_partial))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the shell made it be ignored
        signal.signal(signal.SIGINT, interrupt)
    with suppress(ChainForgeError):
        if this_world().size > 1:
            signal.signal(signal.SIGTERM, terminate)
    _mind_cpu_limit()


def watch_rank(step: str) -> None:
    """The same in one of the processes that our launcher started, by fork or not: it says who was killed."""
    global _watcher, _faults
    if _watcher and _watcher.stdin:
        os.close(_watcher.stdin.fileno())  # the launcher's
    _watcher = _faults = None
    _tell_errors(this_world().label(step))
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGHUP, terminate)


def _tell_errors(step: str) -> None:
    """Two lines for what nobody catches, and where native code crashed."""
    global _faults
    with suppress(OSError):
        log_of(step).parent.mkdir(parents=True, exist_ok=True)
        _faults = log_of(step).open("w", encoding="utf-8")
        faulthandler.enable(_faults)
    sys.excepthook = lambda _kind, error, _tb: end_with(f"\n{unforeseen(step, error)}\n")
    sys.unraisablehook = lambda args: say_last(f"{tell(step, args.exc_value or Left('unknown'))}\n")
    threading.excepthook = lambda args: say_last(f"{tell(step, args.exc_value or Left('unknown'))}\n")


def exit_code(code: int) -> int:
    """What this process ends with, having said why."""
    return code + TOLD if code and LAUNCHER in os.environ else code


def unforeseen(step: str, error: BaseException) -> str:
    """The message of an error that nobody caught."""
    if isinstance(error, Interrupted):
        return f"{step}: stopped at once; run the same command again: it goes on from its last save"
    if not isinstance(error, ChainForgeError) and is_lack_of_memory(error):
        return f"{step}: there is not enough memory ({describe(error)})\n  -> {LESS}"
    return f"{step}: {error}" if isinstance(error, ChainForgeError) else tell(step, error)


def end_with(text: str) -> None:
    """Say the last word: the process ends in an orderly way from here."""
    global _watcher, _faults
    if text:
        say_last(text)
    if _watcher and _watcher.stdin:
        with suppress(OSError):
            _watcher.stdin.write(b"told\n")
            _watcher.stdin.close()
    _watcher = None
    if _faults:
        faulthandler.disable()
        _faults.close()
        with suppress(OSError):
            if os.path.getsize(_faults.name) == 0:
                os.unlink(_faults.name)
    _faults = None


def say_last(text: str) -> None:
    """On stderr; where that is closed or full, on stdout."""
    for stream in (sys.stderr, sys.stdout):
        try:
            known = getattr(stream, "encoding", None) or "utf-8"
            stream.write(text.encode(known, "backslashreplace").decode(known))
            stream.flush()
        except (OSError, ValueError, AttributeError):  # AttributeError: there is no such stream at all
            continue
        return


def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    """The handler of Ctrl-C."""
    raise Interrupted


def terminate(number: int, frame: FrameType | None) -> None:
    """The handler of SIGTERM in one of several processes, but where it means that another one has failed."""
    if not this_world().is_breaking_up():
        interrupt(number, frame)


def _mind_cpu_limit() -> None:
    """Where processor time is limited (`ulimit -t`), be told of it a second before the kernel kills."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if soft == resource.RLIM_INFINITY:
        return

    def ring(_number: int, _frame: FrameType | None) -> NoReturn:
        raise ChainForgeError(
            f"the limit of {soft} s of processor time is reached (ulimit -t)",
            "raise it, and run the same command again: it goes on from its last save",
        )

    signal.signal(signal.SIGXCPU, ring)
    if soft == hard > 1:
        resource.setrlimit(resource.RLIMIT_CPU, (hard - 1, hard))
