"""Memory on the CPU: freed tensors are used again instead of being returned to the system.

glibc's allocator asks the system for every tensor above 32 MB and returns it once freed, and returns smaller
ones too where they lie at the end; each new tensor then begins with a page fault per 4 KB, which takes longer
than most of what is computed on it. The largest still go back: they are few, on huge pages a new one costs
little, and the hole that one of them leaves is filled by none. Source: `man 3 mallopt`.
"""

import ctypes
import os
import platform
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # malloc.h
MOST = 2**25  # a tensor above that comes from the system, and goes back
MUCH = 2**29  # free bytes

# Tensors from 2 MB on lie on huge pages, where the system has them. PyTorch asks at its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


@cache
def reuse_freed_memory() -> bool:
    """Whether it could be arranged, for the whole process: only glibc has this."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, MOST) and mallopt(TRIM_THRESHOLD, 2**31 - 1))


def return_freed_memory() -> None:
    """Return it all the same, if it is much: between phases that need it in pieces of other sizes."""
    libc = ctypes.CDLL(None)
    if platform.libc_ver()[0] == "glibc" and hasattr(libc, "mallinfo2"):  # from 2.33 on
        libc.mallinfo2.restype = _Mallinfo
        if libc.mallinfo2().fordblks > MUCH:
            libc.malloc_trim(0)


class _Mallinfo(ctypes.Structure):
    """Source: `man 3 mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]
