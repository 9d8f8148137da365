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
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainforge.errors import ChainForgeError
from chainforge.providers.nesting import load_json
from chainforge.teachers.journal import NAME, Journal, read_at, read_journal
from chainforge.teachers.line import SCHEMA, SUM, read_line, write_line
from chainforge.teachers.reserve import reserve_for
from chainforge.teachers.torn import TORN

ABOUT = {"fingerprint": "f", "prompt_id": "p", "sample": 0}
RECORDS = [
    {"kind": "sent", **ABOUT, "attempt": n, "most_usd": "0.1", "number": n, "text": "ü\n" * n}
    for n in range(5)
]
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
            await journal.write({"kind": "sent", **ABOUT, "attempt": line, "most_usd": "1", "writer": number})
            on_disk = (tmp_path / NAME).read_bytes()[: syncs[-1]]
            assert f'"attempt":{line},"most_usd":"1","writer":{number},"crc32"'.encode() in on_disk

    async def all_write() -> None:
        with Journal(tmp_path) as journal:
            await asyncio.gather(*(writer(journal, number) for number in range(100)))

    asyncio.run(all_write())
    found = [(record["writer"], record["attempt"]) for record in read(tmp_path)]
    assert sorted(found) == [(number, line) for number in range(100) for line in range(4)]
    for number in range(100):
        assert [line for writer, line in found if writer == number] == [0, 1, 2, 3]
    assert len(syncs) <= 20


@pytest.mark.slow
def test_a_last_line_torn_anywhere_is_set_aside(tmp_path: Path) -> None:
    write(tmp_path / "whole", *RECORDS)
    whole = (tmp_path / "whole" / NAME).read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(whole) - 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / NAME).write_bytes(whole[:cut])
        assert read(folder) == RECORDS[:-1], "reading mends nothing: a writer may be at it"
        assert (folder / NAME).read_bytes() == whole[:cut]
        write(folder, RECORDS[-1])
        assert (folder / NAME).read_bytes() == whole
        torn = (folder / TORN).read_bytes() if cut > start else b"\n"
        assert torn == whole[start:cut] + b"\n"


def test_a_last_line_that_lacks_its_end_alone_is_kept(tmp_path: Path) -> None:
    write(tmp_path, *RECORDS)
    whole = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(whole[:-1])
    assert read(tmp_path) == RECORDS
    write(tmp_path)
    assert (tmp_path / NAME).read_bytes() == whole
    assert not (tmp_path / TORN).exists()


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
    with pytest.raises(
        ChainForgeError, match=rf"journal\.jsonl, line {line}: damaged: .*\n  -> .*delete that one line"
    ):
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
    with pytest.raises(
        ChainForgeError, match=r"journal\.jsonl: the journal cannot be opened: Is a directory"
    ):
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


@pytest.mark.slow
@settings(max_examples=20)
@given(st.dictionaries(halves, any_json))
def test_whatever_a_provider_writes_is_one_line_that_can_be_read(raw: dict[str, Any]) -> None:
    line = write_line({"kind": "answer", "raw": raw})
    assert line.count(b"\n") == 1
    assert orjson.loads(line)["kind"] == "answer"
    assert SUM.search(line[:-1])


def test_halves_of_a_character_are_joined_and_lonely_ones_replaced() -> None:
    said = {
        "kind": "answer",
        "text": "\ud83d" + "\ude00 and \ude00",
        "nan": float("nan"),
        "big": 10**30,
        "bigger": 10**400,
    }
    kept = plain(write_line(said))
    assert kept == {"kind": "answer", "text": "😀 and \ufffd", "nan": None, "big": 1e30, "bigger": None}


@pytest.mark.slow
@given(st.dictionaries(st.text(), st.text() | st.integers(-(2**53), 2**53) | st.lists(st.text())))
def test_what_is_ordinary_is_kept_as_it_is(raw: dict[str, Any]) -> None:
    record = {"kind": "answer", "raw": raw}
    assert plain(write_line(record)) == record


def plain(line: bytes) -> Any:
    """What a line says, without its checksum."""
    return {name: value for name, value in orjson.loads(line).items() if name != "crc32"}


ANSWER = {
    "kind": "answer",
    **ABOUT,
    "attempt": 0,
    "final": True,
    "cause": "answered",
    "at": "2026-11-15T00:00:00.000Z",
    "model": "toy",
    "finish": "stop",
    "reasoning_source": None,
    "synthetic": False,
    "usage": {"hit": 0, "miss": 10, "output": 20, "reasoning": 5},
    "cost_usd": "0.1",
    "raw": {"choices": ["ü"]},
}
FAILED = {
    "kind": "failed",
    **ABOUT,
    "attempt": 1,
    "final": False,
    "cause": "cut",
    "billed": True,
    "message": "",
}
RUN = {"kind": "run", "schema": SCHEMA, "teacher": {}, "identity": {}, "price_table": None}
KINDS = [RUN, RECORDS[1], ANSWER, FAILED, {"kind": "written_off", "billed_usd": "0"}]


@given(record=st.sampled_from(KINDS), data=st.data())
def test_one_flipped_bit_is_never_the_same_line(record: dict[str, Any], data: st.DataObject) -> None:
    line = bytearray(write_line(record))
    bit = data.draw(st.integers(0, 8 * len(line) - 9))  # not of the line's end
    line[bit // 8] ^= 1 << bit % 8
    try:
        found, has_sum = read_line(bytes(line))
    except ValueError:
        return
    assert not has_sum, found


@pytest.mark.parametrize("record", KINDS, ids=lambda record: str(record["kind"]))
def test_a_flipped_bit_anywhere_is_an_error_of_the_journal(record: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, RUN, record)
    path, whole = tmp_path / NAME, (tmp_path / NAME).read_bytes()
    assert read(tmp_path) == [RUN, record]
    start = whole.index(b"\n") + 1
    for place in range(start, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ChainForgeError, match=r"line [23]"):
            read(tmp_path)


@pytest.mark.parametrize("record", KINDS, ids=lambda record: str(record["kind"]))
def test_a_missing_field_is_named(record: dict[str, Any], tmp_path: Path) -> None:
    needed = [name for name in record if name not in ("schema", "number", "text")]
    for name in needed:
        lacking = {key: value for key, value in record.items() if key != name}
        (tmp_path / NAME).write_bytes(write_line(lacking))
        with pytest.raises(ChainForgeError, match=rf"line 1: damaged: .*{name}"):
            read(tmp_path)
        for odd in (7.5, [None], "7x"):
            (tmp_path / NAME).write_bytes(write_line(record | {name: odd}))
            with suppress(ChainForgeError):
                read(tmp_path)


def test_lines_of_an_older_version_are_read_and_those_of_a_later_one_say_so(tmp_path: Path) -> None:
    old = [RUN | {"schema": 1}, RECORDS[0], ANSWER]
    (tmp_path / NAME).write_text("".join(json.dumps(record) + "\n" for record in old))
    assert read(tmp_path) == old
    write(tmp_path, RUN, FAILED)
    assert read(tmp_path) == [*old, RUN, FAILED]
    for newer in (RUN | {"schema": SCHEMA + 1}, {"kind": "bill"}):
        folder = tmp_path / str(newer["kind"])
        write(folder, newer)
        with pytest.raises(
            ChainForgeError, match=r"line 1: (?!damaged).*version.*\n  -> install that version"
        ):
            read(folder)


def test_a_line_without_a_checksum_among_others_is_damage(tmp_path: Path) -> None:
    write(tmp_path, RUN)
    with (tmp_path / NAME).open("a") as file:
        file.write(json.dumps(ANSWER) + "\n")
    with pytest.raises(ChainForgeError, match="line 2: damaged: its checksum is missing"):
        read(tmp_path)


@pytest.mark.parametrize("levels", [10, 100, 300, 600, 5_000, 200_000])
def test_json_nested_however_deep_is_a_line_that_can_be_read(levels: int, tmp_path: Path) -> None:
    raw = load_json('{"text": "kept [{", "deep": ' + "[" * levels + "]" * levels + ', "more": 1}')
    assert (raw["text"], raw["more"]) == ("kept [{", 1)
    write(tmp_path, ANSWER | {"raw": raw})
    assert read(tmp_path)[0]["raw"] == raw


class SmallDisk:
    """`os.write` and the like on a disk of this many bytes, this folder's files alone."""

    def __init__(self, folder: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.size = folder, size
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "posix_fallocate", self.fallocate)

    def left(self) -> int:
        return self.size - sum(path.stat().st_size for path in self.folder.iterdir())

    def write(self, file: int, data: Any) -> int:
        fits = data[: max(self.left(), 0)]
        if not fits:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(file, fits)

    def fallocate(self, file: int, start: int, size: int) -> None:
        if size > self.left() + os.fstat(file).st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(file, size)


@pytest.mark.parametrize("spare", [0, 1, 10_000, 30_000])
def test_a_full_disk_loses_no_answer_under_way(
    spare: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 calls are in flight when the last byte is used up; their answers are as long as they can be."""
    reserve = reserve_for(64, 1000)
    disk = SmallDisk(tmp_path, reserve + 40_000, monkeypatch)
    long = ANSWER | {"raw": {"text": "\u4e2d" * 2500}}  # 1,000 tokens of Chinese, and some

    async def collect() -> None:
        with Journal(tmp_path, reserve) as journal:
            for n in range(64):
                await journal.write(RECORDS[0] | {"fingerprint": str(n)})
            disk.size -= max(disk.left() - spare, 0)
            answers = [journal.write(long | {"fingerprint": str(n)}) for n in range(64)]
            await asyncio.gather(*answers)
            with pytest.raises(ChainForgeError, match=r"no room is left.*\n  -> make room"):
                await journal.write(RECORDS[0] | {"fingerprint": "65"})

    asyncio.run(collect())
    kept = [record["fingerprint"] for record in read(tmp_path) if record["kind"] == "answer"]
    assert kept == [str(n) for n in range(64)]
    with pytest.raises(ChainForgeError, match=r"no room on the disk for the answers.*in flight"):
        Journal(tmp_path, reserve).__enter__()
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, "lock", "lock.owner"]
