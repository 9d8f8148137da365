"""Which of the project's files run: one GRPO step, traced."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tree import ROOT

PACKAGE = f"{ROOT / 'chainforge'}/"


@contextmanager
def passed_files(into: set[str]) -> Iterator[None]:
    """Add the files of chainforge/ whose functions are called inside; not what is imported there."""

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_name != "<module>" and code.co_filename.startswith(PACKAGE):
            into.add(code.co_filename.removeprefix(PACKAGE))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)
