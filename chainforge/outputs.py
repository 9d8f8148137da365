"""Outputs appear whole or not at all: written beside their place, then renamed into it.

What else lies beside it is never followed and never removed: a partial output has a new name, with the number
of its process. Those of a process that was killed are removed with the next one.
"""

import gzip
import hashlib
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import psutil

ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
PARTIAL = re.compile(r"\.chainforge-(\d+)-[0-9a-f]{8}\.partial")
unfinished: set[Path] = set()  # what this process is writing


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `path` when the block ends well, and vanishes when it doesn't."""
    with _partial(path) as partial:
        partial.mkdir()
        yield partial
        _remove(path)
        os.replace(partial, path)


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Yield a text file that replaces `path` when the block ends well, and vanishes when it doesn't.

    A lone surrogate, which UTF-8 cannot hold, becomes a question mark.
    """
    with _partial(path) as partial:
        with partial.open("x", encoding="utf-8", errors="replace", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """Yield a new name beside `path`. What is written there replaces `path` when the block ends well."""
    with _partial(path) as partial:
        yield partial
        os.replace(partial, path)


@contextmanager
def whole_packed_file(path: Path) -> Iterator[TextIO]:
    """`whole_file` for ASCII text that is packed by gzip: the same text is the same bytes, at any time."""
    with (
        whole_path(path) as partial,
        partial.open("xb") as file,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="ascii", newline="\n") as text,
    ):
        yield text


def write_text(path: Path, text: str) -> None:
    """Write a small file whole."""
    with whole_file(path) as file:
        file.write(text)


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Sorted keys, so that the same values are the same bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def leave_nothing_partial() -> None:
    """Remove what this process is writing: it is about to end, and no block of its own will end before."""
    for partial in list(unfinished):
        _discard(partial)


def sha256_of(path: Path) -> str:
    """Of a file as it lies there."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A new name beside `path`, free again afterwards; what a killed process left under one is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    start = f".{path.name:.100}"
    for other in path.parent.iterdir():
        if other.name.startswith(start):
            left = PARTIAL.fullmatch(other.name, len(start))
            if left and not maker_runs(int(left[1]), other):
                _remove(other)
    partial = path.with_name(f"{start}.chainforge-{os.getpid()}-{secrets.token_hex(4)}.partial")
    unfinished.add(partial)
    try:
        yield partial
    finally:
        _discard(partial)
        unfinished.discard(partial)


def maker_runs(number: int, path: Path) -> bool:
    """Whether the process of that number, which made the path, still runs; a later one may have the number.

    One that has ended and that nobody has waited for, a zombie, does not: in a container without an init
    process it stays for good.
    """
    try:
        process = psutil.Process(number)
        return process.status() not in ENDED and process.create_time() <= path.lstat().st_mtime
    except (psutil.Error, OSError):
        return False


def _remove(path: Path) -> None:
    """Remove a file, a folder or a link, but never what a link leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _discard(partial: Path) -> None:
    """Remove as much as can be: there is another error to be told."""
    shutil.rmtree(partial, ignore_errors=True)
    with suppress(OSError):
        partial.unlink(missing_ok=True)
