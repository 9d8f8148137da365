"""The journal: what was awaited is on the disk, a kill tears one line at most, damage is named."""

import asyncio
import errno
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainforge.errors import ChainForgeError
from chainforge.teachers.journal import NAME, TORN, Journal, line_of, read_at, read_journal

RECORDS = [{"kind": "sent", "number": n, "text": "ü\n" * n} for n in range(5)]
halves = st.lists(st.text() | st.sampled_from(["\ud83d", "\ude00"])).map("".join)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | halves,
    lambda inner: st.lists(inner) | st.dictionaries(halves, inner),
    max_leaves=4,
)


def write(folder: Path, *records: dict[str, Any]) -> None:
    """All at the same time."""

    async def together() -> None:
        with Journal(folder) as journal:
            await asyncio.gather(*map(journal.write, records))

    asyncio.run(together())


def read(folder: Path) -> list[Any]:
    return [record for _, record in read_journal(folder)]


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The file's size at every fsync."""
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: sizes.append(os.fstat(file).st_size))
    return sizes


def test_every_awaited_record_is_on_the_disk_and_writers_share_an_fsync(
    tmp_path: Path, syncs: list[int]
) -> None:
    async def writer(journal: Journal, number: int) -> None:
        for line in range(4):
            await journal.write({"kind": "sent", "writer": number, "line": line})
            assert (
                f'"writer":{number},"line":{line}}}'.encode() in (tmp_path / NAME).read_bytes()[: syncs[-1]]
            )

    async def all_write() -> None:
        with Journal(tmp_path) as journal:
            await asyncio.gather(*(writer(journal, number) for number in range(100)))

    asyncio.run(all_write())
    found = [(record["writer"], record["line"]) for record in read(tmp_path)]
    assert sorted(found) == [(number, line) for number in range(100) for line in range(4)]
    for number in range(100):
        assert [line for writer, line in found if writer == number] == [0, 1, 2, 3]
    assert len(syncs) <= 20


def test_a_last_line_torn_anywhere_is_set_aside(tmp_path: Path) -> None:
    write(tmp_path / "whole", *RECORDS)
    whole = (tmp_path / "whole" / NAME).read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(whole)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / NAME).write_bytes(whole[:cut])
        assert read(folder) == RECORDS[:-1], "reading mends nothing: a writer may be at it"
        assert (folder / NAME).read_bytes() == whole[:cut]
        write(folder, RECORDS[-1])
        assert (folder / NAME).read_bytes() == whole
        torn = (folder / TORN).read_bytes() if cut > start else b"\n"
        assert torn == whole[start:cut] + b"\n"


@pytest.mark.parametrize("size", [10, 1 << 16, (1 << 16) + 1, 200_000])
def test_a_journal_that_is_one_torn_line_is_empty(size: int, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"x" * size)
    write(tmp_path, RECORDS[0])
    assert read(tmp_path) == RECORDS[:1]
    assert (tmp_path / TORN).read_bytes() == b"x" * size + b"\n"


def test_a_long_torn_line_is_cut_where_it_begins(tmp_path: Path) -> None:
    write(tmp_path, *RECORDS)
    with (tmp_path / NAME).open("ab") as file:
        file.write(b"y" * 200_000)
    write(tmp_path)
    assert read(tmp_path) == RECORDS


@pytest.mark.parametrize("damage", ["", "{", "null", "7", '"kind"', "[]", "{}", '{"kind"', "\0\0\0"])
@pytest.mark.parametrize("line", [1, 3, 5])
def test_damage_within_is_an_error_that_names_the_line(damage: str, line: int, tmp_path: Path) -> None:
    write(tmp_path, *RECORDS)
    lines = (tmp_path / NAME).read_text().splitlines(keepends=True)
    lines[line - 1] = damage + "\n"
    (tmp_path / NAME).write_text("".join(lines))
    with pytest.raises(ChainForgeError, match=rf"journal\.jsonl, line {line}: damaged: .*\n  -> .*by hand"):
        read(tmp_path)


def test_there_is_nothing_in_a_journal_that_is_not_there(tmp_path: Path) -> None:
    assert read(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_records_are_found_again_by_their_places_in_any_order(tmp_path: Path) -> None:
    write(tmp_path, *RECORDS)
    places = {record["number"]: offset for offset, record in read_journal(tmp_path)}
    order = [3, 0, 4, 3]
    assert list(read_at(tmp_path, (places[n] for n in order))) == [RECORDS[n] for n in order]


def test_a_second_writer_is_told_who_is_first(tmp_path: Path) -> None:
    with Journal(tmp_path), pytest.raises(ChainForgeError, match=rf"already running: PID {os.getpid()}\b"):
        Journal(tmp_path).__enter__()
    code = """
        import sys
        from pathlib import Path
        from chainforge.teachers.journal import Journal
        with Journal(Path(sys.argv[1])):
            print("held", flush=True)
            sys.stdin.read()
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout
    holder.stdout.readline()
    with pytest.raises(ChainForgeError, match=f"already running: PID {holder.pid}"):
        Journal(tmp_path).__enter__()
    holder.kill()
    holder.communicate()
    write(tmp_path, RECORDS[0])


def test_a_journal_that_cannot_be_opened_is_not_held(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        Journal(tmp_path).__enter__()
    (tmp_path / NAME).rmdir()
    write(tmp_path, RECORDS[0])


def half_of_it(real: Callable[..., int]) -> Callable[[int, memoryview], int]:
    """`os.write` on a disk that is full after the first half."""
    full = iter([False, True])

    def half(file: int, data: memoryview) -> int:
        if next(full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, data[: len(data) // 2])

    return half


def fails(real: Callable[[int], None]) -> Callable[[int], None]:
    def fail(file: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.ENOSPC))

    return fail


@pytest.mark.parametrize(("call", "fault"), [("write", half_of_it), ("fsync", fails)])
def test_a_write_that_fails_raises_and_leaves_the_file_as_it_was(
    call: str, fault: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, *RECORDS)
    before = (tmp_path / NAME).read_bytes()

    async def go_on() -> list[Any]:
        with Journal(tmp_path) as journal:
            with monkeypatch.context() as disk:
                disk.setattr(os, call, fault(getattr(os, call)))
                both = map(journal.write, RECORDS[:2])
                results = await asyncio.gather(*both, return_exceptions=True)
            assert (tmp_path / NAME).read_bytes() == before
            await journal.write(RECORDS[0])
            return results

    for error in asyncio.run(go_on()):
        assert isinstance(error, ChainForgeError)
        assert f"{tmp_path}: the journal cannot be written: No space left on device" in str(error)
        assert error.__cause__.errno == code(call)
    assert read(tmp_path) == [*RECORDS, RECORDS[0]]


def code(call: str) -> int:
    return errno.ENOSPC if call == "write" else errno.EIO


def test_who_no_longer_waits_is_written_all_the_same(tmp_path: Path) -> None:
    async def impatient() -> None:
        with Journal(tmp_path) as journal:
            first = asyncio.create_task(journal.write(RECORDS[0]))
            await asyncio.sleep(0)
            first.cancel()
            await journal.write(RECORDS[1])

    asyncio.run(impatient())
    assert read(tmp_path) == RECORDS[:2]


@pytest.mark.parametrize("behind", ["a running fsync", "nothing"])
def test_when_all_is_cancelled_what_waits_is_written(
    behind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a second Ctrl-C does: answers that came in are paid for, whether or not anybody still waits."""
    fsync, running = os.fsync, threading.Event()

    def slow(file: int) -> None:
        running.set()
        time.sleep(0.1)
        fsync(file)

    async def interrupted(journal: Journal) -> None:
        first, *others = RECORDS
        tasks = [asyncio.create_task(journal.write(first))]
        if behind == "a running fsync":
            await asyncio.to_thread(running.wait)
        tasks += [asyncio.create_task(journal.write(record)) for record in others]
        await asyncio.sleep(0)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", slow)
    with Journal(tmp_path) as journal, pytest.raises(KeyboardInterrupt):
        asyncio.run(interrupted(journal))
    assert read(tmp_path) == RECORDS


@settings(max_examples=20)
@given(st.dictionaries(halves, any_json))
def test_whatever_a_provider_writes_is_one_line_that_can_be_read(raw: dict[str, Any]) -> None:
    line = line_of({"kind": "answer", "raw": raw})
    assert line.count(b"\n") == 1
    assert orjson.loads(line)["kind"] == "answer"


def test_halves_of_a_character_are_joined_and_lonely_ones_replaced() -> None:
    said = {
        "kind": "answer",
        "text": "\ud83d" + "\ude00 and \ude00",
        "nan": float("nan"),
        "big": 10**30,
        "bigger": 10**400,
    }
    kept = orjson.loads(line_of(said))
    assert kept == {"kind": "answer", "text": "😀 and \ufffd", "nan": None, "big": 1e30, "bigger": None}


@given(st.dictionaries(st.text(), st.text() | st.integers(-(2**53), 2**53) | st.lists(st.text())))
def test_what_is_ordinary_is_kept_as_it_is(raw: dict[str, Any]) -> None:
    record = {"kind": "answer", "raw": raw}
    assert json.loads(line_of(record)) == record
