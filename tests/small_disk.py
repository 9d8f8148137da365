"""A disk that is soon full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of this size, as `mount` writes it, at this new folder; only root can make one."""
    folder.mkdir()
    if subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield folder
    finally:
        subprocess.run(("umount", "--lazy", str(folder)), check=True)
