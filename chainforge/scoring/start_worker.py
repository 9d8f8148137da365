"""Start the process of a reward, and say how one ended."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from chainforge.scoring import worker

COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); descriptor = int(sys.argv.pop(1)); "
    f"from {worker.__name__} import main; main(descriptor)"
)


def start_worker(environment: Mapping[str, str]) -> tuple["subprocess.Popen[bytes]", Connection]:
    """A process that waits for a reward to load, and our end of the connection to it."""
    ours, theirs = Pipe()
    path = json.dumps(sys.path, default=str)
    command = [sys.executable, "-P", "-c", COMMAND, path, str(theirs.fileno())]
    with theirs:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            env=environment,
        )
    return process, ours


def ending(code: int) -> str:
    """An exit code, or the signal that ended a process, in words."""
    name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
    return f"killed by {name}" if code < 0 else f"exit code {code}"
