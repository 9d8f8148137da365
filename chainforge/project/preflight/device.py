"""A device that this machine does not have."""

import subprocess
import sys

from chainforge.errors import ChainForgeError

SECONDS = 120
PROBES = {
    "cuda": "__import__('torch').cuda.is_available()",
    "mps": "__import__('torch').backends.mps.is_available()",
}


def check_device(device: str) -> None:
    """Raise ChainForgeError where torch does not find the device that was asked for by name.

    In a process of its own: torch takes seconds to import, and `auto` needs no answer.
    """
    if device not in PROBES:
        return
    code = f"import sys; sys.exit(0 if {PROBES[device]} else 3)"
    try:
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return  # the steps report it themselves
    if ended.returncode == 3:
        raise ChainForgeError(
            f"runtime.device is {device}, and torch finds no such device here",
            "set it to auto or cpu, or run on a machine that has one",
        )
