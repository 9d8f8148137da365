"""Memory on the CPU: freed tensors are used again instead of being returned to the system.

glibc's allocator asks the system for every tensor above 32 MB and returns it once freed, and returns smaller
ones too where they lie at the end; each new tensor then begins with a page fault per 4 KB, which takes longer
than most of what is computed on it. The very largest still go back: they are few, and a hole that one of them
leaves is filled by none. Source: `man 3 mallopt`.
"""

import ctypes
import platform
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # malloc.h
MOST = 2**26  # a tensor above that comes from the system, and goes back


@cache
def reuse_freed_memory() -> bool:
    """Whether it could be arranged, for the whole process: only glibc has this."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, MOST) and mallopt(TRIM_THRESHOLD, 2**31 - 1))
