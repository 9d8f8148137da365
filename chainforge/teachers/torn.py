"""What a kill left of a file's last line."""

import os
from pathlib import Path

from chainforge.teachers.line import read_line

TORN = "journal.torn"


def mend(path: Path) -> None:
    """Cut off a last line that a kill tore; it is kept beside, in journal.torn. One that lacks nothing but
    its end gets that."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = whole_length(file.fileno())
        file.seek(end)
        if not (torn := file.read()):
            return
        if is_whole(torn):
            file.write(b"\n")
        else:
            with path.with_name(TORN).open("ab") as aside:
                aside.write(torn + b"\n")
            file.truncate(end)
        file.flush()
        os.fsync(file.fileno())


def is_whole(line: bytes) -> bool:
    """Whether a line without an end has all the rest."""
    try:
        read_line(line)
    except ValueError:
        return False
    return True


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
