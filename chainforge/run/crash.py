"""What nobody expected: its traceback goes to a file, and the user gets the file's name."""

import os
import tempfile
import traceback
from pathlib import Path

LOGS = Path("logs")


def record_crash(where: str, error: BaseException) -> Path:
    """Write the traceback to logs/crash/WHERE.log, or where that cannot be written, to the system's folder
    for temporary files. Returns the file."""
    text = "".join(traceback.format_exception(error))
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in where) or "chainforge"
    path = LOGS / "crash" / f"{name}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError:
        file, elsewhere = tempfile.mkstemp(prefix=f"chainforge-{name}-", suffix=".log")
        path = Path(elsewhere)
        with os.fdopen(file, "w", encoding="utf-8", errors="backslashreplace") as log:
            log.write(text)
    return path
