"""Digests of files and folders, every byte of them. Large files are read again only when they have changed.

Nothing here imports torch.
"""

import hashlib
import json
import time
from pathlib import Path

from chainforge.original import original_root
from chainforge.outputs import write_json

MISSING = "missing"
LARGE = 2**26  # bytes: reading less takes no time
SETTLED_NS = 2_000_000_000  # a younger file may still change without a change of its time stamp


def digest_path(path: Path) -> str:
    """16 hexadecimal digits of a file, or of all files below a folder; "missing" where there is nothing."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        parts = [(file.relative_to(path).as_posix(), digest_path(file)) for file in files]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    if not path.is_file():
        return MISSING
    return _read(path) if path.stat().st_size < LARGE else _digest_once(path)


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _digest_once(path: Path) -> str:
    """The digest of the last time, if size, time and place on the disk are still the same, as DVC does it."""
    status, key = path.stat(), str(path.resolve())
    stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
    memory = original_root() / ".dvc/tmp/chainforge-digests.json"
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if key in known and known[key][:3] == stamp:
        return str(known[key][3])
    digest = _read(path)
    if memory.parents[1].is_dir() and time.time_ns() - status.st_mtime_ns > SETTLED_NS:
        write_json(memory, known | {key: [*stamp, digest]})
    return digest
