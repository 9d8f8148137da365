"""An error that nobody foresaw, told in two lines; its traceback goes to a file."""

import json
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

LOGS = Path("logs")
LONGEST = 500  # characters of a message that are shown


def tell(where: str, error: BaseException) -> str:
    """What happened and where, then what to do. Writes the traceback to a file. Never raises."""
    place, is_plugin = _place(error)
    log = record_crash(where, error)
    kept = f"the traceback is in {log}" if log else "its traceback cannot be written: no folder is writable"
    signs = "; ".join(_signs())
    if is_plugin:
        fix = f"mend that plugin; {kept}"
    elif signs:
        fix = f"{signs}; {kept}"
    else:
        fix = f"look for a file or a setting that it names; {kept}, to be reported if it is our mistake"
    return f"{where}: {_described(error)}{f' ({place})' if place else ''}\n  -> {fix}"


def record_crash(where: str, error: BaseException) -> Path | None:
    """Write the traceback to logs/WHERE.traceback.txt, or to a temporary file; None if neither is possible.

    Never raises. `where` is the name of a step or of a command.
    """
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # an error that cannot be shown; its frames can
        text = "".join(traceback.format_tb(error.__traceback__)) + _described(error) + "\n"
    for path in (log_of(where), Path(tempfile.gettempdir()) / f"chainforge-{os.getpid()}.traceback.txt"):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        except (OSError, ValueError):
            continue
        return path
    return None


def log_of(where: str) -> Path:
    """Where a traceback goes: of distill@student, to logs/distill/student.traceback.txt."""
    name = re.sub(r"[^\w.@-]", "_", where)[:150].replace("@", "/", 1)
    return LOGS / f"{name}.traceback.txt"


def _described(error: BaseException) -> str:
    """Type and first line of its text, which may be broken itself."""
    try:
        text = next(iter(str(error).strip().splitlines()), "")[:LONGEST]
    except BaseException:
        text = "(its text cannot be shown)"
    name = type(error).__name__
    if isinstance(error, SystemExit):
        return f"sys.exit({text}) was called before the step had ended"
    return f"{name}: {text}" if text else name


def _place(error: BaseException) -> tuple[str, bool]:
    """The innermost line of a plugin's file, or else of any, and whether it is a plugin's."""
    try:
        frames = traceback.extract_tb(error.__traceback__)
    except BaseException:
        return "", False
    ours = [frame for frame in frames if Path(frame.filename).parent.name == "plugins"]
    for frame in (ours or frames)[-1:]:
        path = Path(frame.filename)
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        return f"{shown}, line {frame.lineno}, in {frame.name}", bool(ours)
    return "", False


def _signs() -> Iterator[str]:
    """What a plugin may have done to the whole process, and now breaks others."""
    torch = sys.modules.get("torch")
    if torch and not torch.is_grad_enabled():
        yield "torch's gradients are off: a plugin called set_grad_enabled(False), where no_grad() would do"
    if json.dumps.__module__ != "json":
        yield f"json.dumps was replaced by {json.dumps.__module__}: a plugin must not do that"
