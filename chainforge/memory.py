"""How much memory there is, and too little of it, said in two lines: PyTorch says it in three ways."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chainforge.errors import ChainForgeError

OF_PYTORCH = "OutOfMemoryError"  # by name: whoever imports this does not wait for torch
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # v2, v1
OF_ALLOCATORS = ("can't allocate memory", "not enough memory", "out of memory")  # in plain RuntimeErrors


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether that is what an error means."""
    if isinstance(error, MemoryError) or type(error).__name__ == OF_PYTORCH:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OF_ALLOCATORS)


@contextmanager
def enough_memory(what: str, fix: str) -> Iterator[None]:
    """Inside, a lack of memory is a ChainForgeError that says what needed it and what to lower."""
    try:
        yield
    except Exception as error:
        if not is_lack_of_memory(error):
            raise
        raise ChainForgeError(f"there is not enough memory for {what}", fix) from error


def machine_memory() -> float:
    """Bytes of memory and swap that a process may have: the machine's, or fewer where a container or `ulimit
    -v` sets a limit."""
    import psutil

    most = psutil.virtual_memory().total + psutil.swap_memory().total
    limits = [resource.getrlimit(resource.RLIMIT_AS)[0]]
    for path in CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # there is none, or it says `max`
            limits.append(int(Path(path).read_text()))
    return min(most, *(limit for limit in limits if limit > 0))
