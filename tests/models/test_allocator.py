"""Freed memory is kept for the next tensor, where the C library can do so; that of the largest goes back."""

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
    torch.ones(SIZE)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(min(faults() for _ in range(5)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
@pytest.mark.parametrize(("megabytes", "is_kept"), [(60, True), (80, False)])
def test_a_tensor_that_was_freed_costs_page_faults_the_next_time_if_it_was_huge(
    megabytes: int, is_kept: bool
) -> None:
    """In a process of its own: the heap of this one has many holes by now."""
    code = FAULTS.replace("SIZE", f"{megabytes}_000_000 // 4")
    ended = subprocess.run((sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, check=True)
    assert (int(ended.stdout) < 1000) == is_kept  # a page is 4 KB


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not reuse_freed_memory.__wrapped__()
