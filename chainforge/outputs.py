"""Outputs appear whole or not at all: written beside their place, then renamed into it."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `path` when the block ends well, and vanishes when it doesn't."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            shutil.rmtree(path)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Yield a text file that replaces `path` when the block ends well, and vanishes when it doesn't.

    A lone surrogate, which UTF-8 cannot hold, becomes a question mark.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small file whole."""
    with whole_file(path) as file:
        file.write(text)


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Sorted keys, so that the same values are the same bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def sha256_of(path: Path) -> str:
    """Of a file as it lies there."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
