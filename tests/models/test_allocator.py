"""Freed memory is kept for the next tensor, where the C library can do so."""

import platform
import subprocess
import sys

import pytest
from fakes import ROOT

from chainforge.models.allocator import reuse_freed_memory

FAULTS = """
import resource, torch
from chainforge.models.allocator import reuse_freed_memory
assert reuse_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(20_000_000)  # 80 MB, 20,000 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(min(faults() for _ in range(5)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_a_large_tensor_that_was_freed_costs_no_page_faults_the_next_time() -> None:
    """In a process of its own: the heap of this one has many holes by now."""
    ended = subprocess.run(
        (sys.executable, "-c", FAULTS), cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(ended.stdout) < 1000


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not reuse_freed_memory.__wrapped__()
