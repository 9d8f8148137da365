"""Room on the disk that is kept for answers under way: given back when nothing else is left."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from chainforge.errors import ChainForgeError

NAME = "journal.reserve"
BYTES_PER_TOKEN = 8  # of text in any script, escaped as JSON
BYTES_PER_CALL = 1 << 16  # besides: its lines in the journal, the question, the provider's own fields
FULL = (errno.ENOSPC, errno.EDQUOT)


def reserve_for(calls: int, max_tokens: int) -> int:
    """Bytes that the answers of `calls` calls in flight can take."""
    return calls * (BYTES_PER_CALL + BYTES_PER_TOKEN * max_tokens)


class Reserve:
    """A file of `size` bytes that hold nothing. `is_left` until it is given back."""

    def __init__(self, folder: Path, size: int) -> None:
        self._path, self._size = folder / NAME, size
        self.is_left = False

    def take(self) -> None:
        """Raise ChainForgeError where there is not as much room."""
        if not self._size:
            return
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            fill(file, self._size)
            os.ftruncate(file, self._size)
        except OSError as error:
            self.give_back()
            if error.errno not in FULL:
                raise
            raise ChainForgeError(
                f"{self._path.parent}: no room on the disk for the answers that would be in flight: "
                f"{self._size / 1e6:,.0f} MB are kept for them while the collector runs",
                "make room there, or lower collector.concurrency; then run the same command again",
            ) from None
        finally:
            os.close(file)
        self.is_left = True

    def give_back(self) -> None:
        """Make its room free."""
        self.is_left = False
        with suppress(FileNotFoundError):
            os.unlink(self._path)


def fill(file: int, size: int) -> None:
    """Make sure that the blocks are there, and not only the length."""
    try:
        os.posix_fallocate(file, 0, size)
    except (AttributeError, OSError) as error:  # AttributeError: macOS
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        block = bytes(1 << 20)
        for start in range(0, size, len(block)):
            os.pwrite(file, block[: size - start], start)
