"""A digest of input files: every byte counts, and what has not changed is not read again."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.project import file_digests
from chainforge.project.file_digests import digest_path

LONG_AGO = 1_600_000_000


@pytest.fixture(autouse=True)
def small_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files from 100 bytes on are remembered, in a project of DVC's."""
    monkeypatch.setattr(file_digests, "LARGE", 100)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / ".dvc").mkdir()


def written(path: Path, content: bytes, *, at: int = LONG_AGO) -> Path:
    path.write_bytes(content)
    os.utime(path, (at, at))
    return path


@pytest.mark.slow
@given(size=st.integers(1, 300), place=st.integers(0, 299))
def test_every_byte_counts(size: int, place: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, content = tmp_path_factory.mktemp("bytes"), bytearray(size)
    before = digest_path(written(folder / "a", bytes(content)))
    content[place % size] ^= 1
    assert digest_path(written(folder / "b", bytes(content))) != before
    assert digest_path(written(folder / "c", bytes(size))) == before


def test_a_large_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, read = written(tmp_path / "weights", b"a" * 300), []
    usual = file_digests._read
    monkeypatch.setattr(file_digests, "_read", lambda path: read.append(path.name) or usual(path))
    first = digest_path(file)
    assert digest_path(file) == first
    assert read == ["weights"]
    written(file, b"a" * 150 + b"b" + b"a" * 149, at=LONG_AGO + 1)
    assert digest_path(file) != first
    assert read == ["weights", "weights"]


def test_a_file_that_may_still_change_within_its_time_is_not_remembered(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"a" * 300)
    first, status = digest_path(file), file.stat()
    with file.open("r+b") as same:
        same.write(b"b")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest_path(file) != first


def test_a_torn_memory_is_no_memory(tmp_path: Path) -> None:
    file = written(tmp_path / "weights", b"a" * 300)
    first = digest_path(file)
    (tmp_path / ".dvc/tmp/chainforge-digests.json").write_text("{")
    assert digest_path(file) == first


def test_a_folder_is_known_by_all_files_below_it(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "nested").mkdir(parents=True)
    (folder / "a").write_text("1")
    one = digest_path(folder)
    (folder / "nested/b").write_text("1")
    two = digest_path(folder)
    (folder / "nested/b").rename(folder / "b")
    assert len({one, two, digest_path(folder)}) == 3
    (folder / "b").unlink()
    assert digest_path(folder) == one


def test_nothing_is_missing(tmp_path: Path) -> None:
    assert digest_path(tmp_path / "none") == "missing"
