"""Freed memory is kept for the next tensor, where the C library can do so; that of the largest goes back."""

import platform
import subprocess
import sys

import pytest
from fakes import ROOT

from chainforge.models.allocator import reuse_freed_memory

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
START = """
import resource, torch
from pathlib import Path
from chainforge.models import allocator
assert allocator.reuse_freed_memory()
def resident_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1_000_000
"""
FAULTS = """
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(7_500_000)  # 30 MB, 7,500 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(min(faults() for _ in range(5)))
"""
KEPT = """
before = resident_mb()
tensors = [torch.ones({elements}) for _ in range(20)]
wall = torch.ones(1000)  # lies behind them: nothing is returned for lying at the end
del tensors
kept = resident_mb() - before
allocator.return_freed_memory()
print(kept, resident_mb() - before)
"""


def ran(code: str) -> list[int]:
    """What the code prints, in a process of its own: the heap of this one has many holes by now."""
    ended = subprocess.run(
        (sys.executable, "-c", START + code), cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [int(word) for word in ended.stdout.split()]


@glibc
def test_a_tensor_that_was_freed_costs_no_page_faults_the_next_time() -> None:
    (faults,) = ran(FAULTS)
    assert faults < 300


@glibc
def test_large_tensors_are_kept_until_it_is_asked_for_and_the_largest_never() -> None:
    kept, left = ran(KEPT.format(elements=7_000_000))  # 28 MB
    assert kept > 500
    assert left < 100
    kept, _ = ran(KEPT.format(elements=20_000_000))  # 80 MB
    assert kept < 100


@glibc
def test_a_little_is_never_returned() -> None:
    kept, left = ran(KEPT.format(elements=2_000_000))  # 8 MB, 160 in all
    assert kept > 140
    assert left == pytest.approx(kept, abs=20)


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not reuse_freed_memory.__wrapped__()
