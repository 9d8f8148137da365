"""What a reward that runs here must not leave changed: where files are looked for, and how torch computes."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def as_before() -> Iterator[None]:
    """Set back the working folder and, where torch is loaded, gradients and the default type."""
    folder = os.getcwd()
    torch = sys.modules.get("torch")
    if torch:
        gradients, kind = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        yield
    finally:
        with suppress(OSError):
            os.chdir(folder)
        if torch:
            torch.set_grad_enabled(gradients)
            torch.set_default_dtype(kind)


def is_of_the_user(error: BaseException) -> bool:
    """Whether this is Ctrl-C. While a step listens to it, a plain KeyboardInterrupt is the reward's own."""
    plain = signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    return isinstance(error, KeyboardInterrupt) and not (plain and type(error) is KeyboardInterrupt)
