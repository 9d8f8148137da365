"""Errors that say what is wrong, then what to do."""

import difflib
from collections.abc import Iterable


class ChainForgeError(Exception):
    """A problem the user can fix: one line for what is wrong and where, one for what to do."""

    exit_code = 1

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem}\n  -> {fix}")
        self.problem = problem
        self.fix = fix


def unknown(kind: str, name: str, known: Iterable[str]) -> ChainForgeError:
    """The error for a name that nobody answers to, with the nearest known one."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return ChainForgeError(
        f"there is no {kind} called {name!r}", f"{guess}known: {', '.join(names) or 'none'}"
    )
