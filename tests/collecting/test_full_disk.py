"""A disk that is full while 64 calls are in flight: not one paid answer is lost.

The disk is a tmpfs where mounting one is allowed, and everywhere a model of one: `os.write` gives "no space
left" once the files of the folder fill it. Both count the blocks that files really have.
"""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from odd_answers import bill, framed, honest, mark
from odd_runs import collect
from odd_server import Asked, OddServer, Said
from small_disk import small_disk

from chainforge.errors import ChainForgeError
from chainforge.teachers.collector import Collector

pytestmark = pytest.mark.usefixtures("quick")

IN_FLIGHT, PROMPTS = 64, 100
THOUGHT = "so let me see: " * 1500  # 22 KB, as teachers think
DISK_MB = 128


def thoughtful(asked: Asked) -> Said:
    """A long answer."""
    answer = honest(asked)
    answer["choices"][0]["message"]["reasoning_content"] = THOUGHT
    answer["usage"] |= {"completion_tokens": len(THOUGHT) // 4, "total_tokens": None}
    return Said(steps=framed(answer, asked), tokens=bill(answer), mark=mark(asked))


@dataclass
class Disk:
    """`fill` leaves no room for one more block, `clear` makes as much as one may want."""

    folder: Path
    fill: Callable[[], None]
    clear: Callable[[], None]


def used(folder: Path) -> int:
    """Bytes in blocks; files may go while we look."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


@pytest.fixture
def modelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    room: list[int] = []
    write = os.write

    def limited(file: int, data: Any) -> int:
        inside = os.readlink(f"/proc/self/fd/{file}").startswith(str(tmp_path))
        if not room or not inside:
            return write(file, data)
        free = room[0] - used(tmp_path)
        if free <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data[:free])

    monkeypatch.setattr(os, "write", limited)
    return Disk(tmp_path, lambda: room.append(used(tmp_path)), room.clear)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", f"{DISK_MB}m") as folder:

        def fill() -> None:
            free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
            with (folder / "ballast").open("wb", buffering=0) as ballast:
                os.posix_fallocate(ballast.fileno(), 0, free)

        yield Disk(folder, fill, (folder / "ballast").unlink)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["modelled", "mounted"])
@pytest.mark.parametrize(
    "stream", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["whole", "streamed"]
)
def test_a_full_disk_loses_no_answer_of_64_in_flight(
    kind: str, stream: bool, request: pytest.FixtureRequest
) -> None:
    disk: Disk = request.getfixturevalue(kind)
    out = disk.folder / "out"
    server = OddServer(thoughtful, free=0)

    def watch(collector: Collector) -> None:
        if len(server.ledger) == IN_FLIGHT and not server.gate.is_set():
            disk.fill()
            server.gate.set()

    said = {"max_tokens": 32_768}
    settings = {"concurrency": IN_FLIGHT, "stream": stream, "deadline_s": 600.0}
    ended = collect(out, PROMPTS, server=server, watch=watch, said=said, cleared=disk.clear, **settings)
    assert server.gate.is_set()
    assert isinstance(ended.stopped, ChainForgeError)
    assert "room" in str(ended.stopped)
    assert len(server.ledger) == IN_FLIGHT
    assert [entry.said.mark for entry in server.ledger if entry.said.mark.encode() not in ended.journal] == []
    assert len(ended.paid.finals) == IN_FLIGHT
    assert (ended.paid.spent, ended.paid.possibly) == (server.usd, 0)
    again = collect(out, PROMPTS, thoughtful, said=said, **settings)
    assert again.stopped is None
    assert len(again.server.ledger) == PROMPTS - IN_FLIGHT
    assert len(again.paid.finals) == PROMPTS
