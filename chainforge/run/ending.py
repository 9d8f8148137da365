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
from chainforge.errors import ChainForgeError
from chainforge.outputs import leave_nothing_partial
from chainforge.run.crash import log_of, tell
from chainforge.run.world import this_world

# Reads one word from the step. Where the step is gone without it, says so.
WATCHER = """trap "" INT TERM HUP QUIT
read -r word || { printf '\\n%s\\n' "$1"; [ -s "$2" ] && printf '  -> where it was: %s\\n' "$2"; } >&2"""

_watcher: "subprocess.Popen[bytes] | None" = None
_faults: IO[str] | None = None


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, and not a KeyboardInterrupt that a plugin raised."""


def watch_ending(step: str) -> None:
    """Let nothing end this process unsaid. Main thread, once, before anything is imported that can fail."""
    global _watcher, _faults
    several = False
    with suppress(ChainForgeError):  # who runs the step says that the launcher's variables make no sense
        world = this_world()
        step, several = world.label(step), world.size > 1
    if shell := shutil.which("sh"):
        gone = (
            f"{step}: its process ended without a word: killed, most often for want of memory, or ended by "
            "native code of a plugin\n  -> give it more memory or less to do (runtime.micro_batch_tokens, "
            "runtime.rollout_rows), and run the same command again: it goes on from its last save"
        )
        with suppress(OSError):
            command = [shell, "-c", WATCHER, "sh", gone, str(log_of(step))]
            _watcher = subprocess.Popen(command, stdin=subprocess.PIPE)
    with suppress(OSError):
        log_of(step).parent.mkdir(parents=True, exist_ok=True)
        _faults = log_of(step).open("w", encoding="utf-8")
        faulthandler.enable(_faults)
    sys.excepthook = lambda _kind, error, _tb: end_with(f"\n{unforeseen(step, error)}\n")
    sys.unraisablehook = lambda args: say_last(f"{tell(step, args.exc_value or Left('unknown'))}\n")
    threading.excepthook = lambda args: say_last(f"{tell(step, args.exc_value or Left('unknown'))}\n")
    forbid_leaving()
    farewells.extend((lambda: end_with(""), leave_nothing_partial))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the shell made it be ignored
        signal.signal(signal.SIGINT, interrupt)
    if several:  # the launcher ends the others so when one has failed
        signal.signal(signal.SIGTERM, interrupt)
    _mind_cpu_limit()


def unforeseen(step: str, error: BaseException) -> str:
    """The message of an error that nobody caught."""
    if isinstance(error, Interrupted):
        return f"{step}: stopped at once; run the same command again: it goes on from its last save"
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
