"""What was asked and answered, for good: append-only JSONL that outlives every kill.

Lines, by `kind`: `run` (who asks, with which parameters), `sent` (before a call goes out), `answer` (the
provider's JSON, whole), `failed` (no answer), `written_off` (what was possibly paid, and was not). A call is
one `sent` and an `answer` or a `failed` with the same fingerprint and attempt; a `sent` alone was in flight
when the process was killed.
"""

import asyncio
import os
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Self

from chainforge.errors import ChainForgeError
from chainforge.run.exclusive import exclusive
from chainforge.teachers.line import NewerVersion, Record, read_line, write_line
from chainforge.teachers.reserve import FULL, Reserve
from chainforge.teachers.torn import is_whole, mend

NAME = "journal.jsonl"
MEND = (
    "answers were paid for: delete that one line (if it is an answer, its question is asked again), then run "
    "again; chainforge collect verify names all such lines"
)


class Journal:
    """The one writer of a journal; another process that wants it is refused.

    `reserve` bytes of the disk are kept for what is in flight. When the disk is full they are given back:
    from then on answers are written, and no call is.
    """

    def __init__(self, folder: Path, reserve: int = 0) -> None:
        self.folder = folder
        self._held: AbstractContextManager[None] = exclusive(folder / "lock", f"a collector in {folder}")
        self._reserve = Reserve(folder, reserve)
        self._is_full = False
        self._waiting: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self.file = -1

    def __enter__(self) -> Self:
        """Take the lock, and cut off what a kill left of a last line. Raises ChainForgeError."""
        try:
            with ExitStack() as undo:
                self._held.__enter__()
                undo.callback(self._held.__exit__, None, None, None)
                path = self.folder / NAME
                mend(path)
                self._reserve.take()
                undo.callback(self._reserve.give_back)
                self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                undo.pop_all()
        except OSError as error:
            raise ChainForgeError(
                f"{error.filename or self.folder}: the journal cannot be opened: {error.strerror or error}",
                "make that folder one in which you can write, then run the same command again",
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        """Write what nobody waits for any more: a second Ctrl-C cancels those who did."""
        with ExitStack() as undo:
            undo.callback(self._held.__exit__, None, None, None)
            undo.callback(self._reserve.give_back)
            undo.callback(os.close, self.file)
            if error := self._write_waiting()[1]:
                raise error

    async def write(self, record: Record) -> None:
        """Return once the record is on the disk. Who waits at the same time shares one write and one fsync.

        Raises ChainForgeError where it is not; then the file is as it was before.
        """
        if self._is_full and record["kind"] == "sent":
            raise self._failed("no room is left on the disk: what is in flight is still written")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((write_line(record), done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
        await done

    async def _write_all(self) -> None:
        while self._waiting:
            written, error = await asyncio.to_thread(self._write_waiting)
            for done in written:
                if done.done():
                    continue  # who waited was cancelled
                done.set_exception(error) if error else done.set_result(None)

    def _write_waiting(self) -> tuple[list[asyncio.Future[None]], ChainForgeError | None]:
        """Write all lines that wait by now: (who waited for them, what went wrong).

        It takes them itself, in its thread: a thread that never starts has taken none.
        """
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        data = b"".join(line for line, _ in batch)
        try:
            try:
                append(self.file, data)
            except OSError as error:
                if error.errno not in FULL or not self._reserve.is_left:
                    raise
                self._is_full = True
                self._reserve.give_back()
                append(self.file, data)
        except OSError as error:
            failed = self._failed(error.strerror or str(error))
            failed.__cause__ = error
            return [done for _, done in batch], failed
        return [done for _, done in batch], None

    def _failed(self, why: str) -> ChainForgeError:
        return ChainForgeError(
            f"{self.folder}: the journal cannot be written: {why}",
            "make room there, then run the same command again: what it has is safe",
        )


def append(file: int, data: bytes) -> None:
    """All of it on the disk, or none: a full disk leaves no torn line."""
    if not data:
        return
    before = os.fstat(file).st_size
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(file, left) :]
        os.fsync(file)
    except OSError:
        os.ftruncate(file, before)
        raise


def size_of(folder: Path) -> int:
    """Bytes; the same as before if nobody wrote."""
    path = folder / NAME
    return path.stat().st_size if path.exists() else 0


def read_journal(folder: Path) -> Iterator[tuple[int, Record]]:
    """(offset, record) of every whole line. Raises ChainForgeError that names a damaged one."""
    for number, offset, record, _ in examine(folder):
        if isinstance(record, ValueError):
            damage = "" if isinstance(record, NewerVersion) else "damaged: "
            fix = MEND if damage else "install that version: pip install --upgrade chainforge-r1"
            raise ChainForgeError(f"{folder / NAME}, line {number}: {damage}{record}", fix) from record
        yield offset, record


def examine(folder: Path) -> Iterator[tuple[int, int, Record | ValueError, bool]]:
    """(number from 1, offset, record or what is wrong with it, has a checksum) of every whole line."""
    path = folder / NAME
    if not path.exists():
        return
    offset, summed = 0, False  # summed: whether the lines here have checksums
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n") and not is_whole(line):
                return  # being written, or torn by a kill
            try:
                record, has_sum = read_line(line)
                older = record["kind"] == "run" and record.get("schema", 1) == 1
                summed = has_sum or (summed and not older)
                if not has_sum and (summed or record.get("schema", 1) != 1):
                    raise ValueError("its checksum is missing")
            except ValueError as error:
                yield number, offset, error, False
            else:
                yield number, offset, record, has_sum
            offset += len(line)


def read_at(folder: Path, offsets: Iterator[int]) -> Iterator[Record]:
    """The records at these offsets, in this order."""
    with (folder / NAME).open("rb") as lines:
        for offset in offsets:
            lines.seek(offset)
            yield read_line(lines.readline())[0]
