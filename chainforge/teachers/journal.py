"""What was asked and answered, for good: append-only JSONL that outlives every kill.

Lines, by `kind`: `run` (who asks, with which parameters), `sent` (before a call goes out), `answer` (the
provider's JSON, whole), `failed` (no answer). A call is one `sent` and one of the other two, with the same
fingerprint and attempt; a `sent` alone was in flight when the process was killed.
"""

import asyncio
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Self

import orjson

from chainforge.errors import ChainForgeError
from chainforge.run.exclusive import exclusive

NAME = "journal.jsonl"
TORN = "journal.torn"
LONGEST_NUMBER = 300  # digits
Record = Mapping[str, Any]


class Journal:
    """The one writer of a journal; another process that wants it is refused."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: AbstractContextManager[None] = exclusive(folder / "lock", f"a collector in {folder}")
        self._waiting: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self.file = -1

    def __enter__(self) -> Self:
        """Take the lock, and cut off what a kill left of a last line."""
        with ExitStack() as undo:
            self._held.__enter__()
            undo.callback(self._held.__exit__, None, None, None)
            path = self.folder / NAME
            mend(path)
            self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Write what nobody waits for any more: a second Ctrl-C cancels those who did."""
        with ExitStack() as undo:
            undo.callback(self._held.__exit__, None, None, None)
            undo.callback(os.close, self.file)
            if error := self._write_waiting()[1]:
                raise error

    async def write(self, record: Record) -> None:
        """Return once the record is on the disk. Who waits at the same time shares one write and one fsync.

        Raises ChainForgeError where it is not; then the file is as it was before.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((line_of(record), done))
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
        try:
            append(self.file, b"".join(line for line, _ in batch))
        except OSError as error:
            failed = ChainForgeError(
                f"{self.folder}: the journal cannot be written: {error.strerror or error}",
                "make room there, then run the same command again: what it has is safe",
            )
            failed.__cause__ = error
            return [done for _, done in batch], failed
        return [done for _, done in batch], None


def line_of(record: Record) -> bytes:
    """One line. What JSON allows and orjson does not is made fit: the answer was paid for.

    Halves of a character are joined, or replaced where one is missing; NaN and the like become null.
    """
    try:
        return orjson.dumps(record) + b"\n"
    except orjson.JSONEncodeError:
        plain = json.loads(
            json.dumps(record),
            parse_constant=lambda _: None,
            parse_int=lambda digits: int(digits) if len(digits) < LONGEST_NUMBER else None,
        )
        text = json.dumps(plain, ensure_ascii=False)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode() + b"\n"


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


def mend(path: Path) -> None:
    """Cut off a last line without an end; it is kept beside, in journal.torn."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = whole_length(file.fileno())
        file.seek(end)
        if torn := file.read():
            with path.with_name(TORN).open("ab") as aside:
                aside.write(torn + b"\n")
            file.truncate(end)


def whole_length(file: int, block: int = 1 << 16) -> int:
    """Where the last whole line ends."""
    end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - block)
        cut = os.pread(file, end - start, start).rfind(b"\n")
        if cut >= 0:
            return start + cut + 1
        end = start
    return 0


def read_journal(folder: Path) -> Iterator[tuple[int, Record]]:
    """(offset, record) of every whole line. Raises ChainForgeError that names a damaged one."""
    path = folder / NAME
    if not path.exists():
        return
    offset = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return  # being written, or torn by a kill
            try:
                record = orjson.loads(line)
                record["kind"]
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                raise ChainForgeError(
                    f"{path}, line {number}: damaged: {error}",
                    "answers were paid for: mend or delete that one line by hand, then run again",
                ) from error
            yield offset, record
            offset += len(line)


def read_at(folder: Path, offsets: Iterator[int]) -> Iterator[Record]:
    """The records at these offsets, in this order."""
    with (folder / NAME).open("rb") as lines:
        for offset in offsets:
            lines.seek(offset)
            yield orjson.loads(lines.readline())
