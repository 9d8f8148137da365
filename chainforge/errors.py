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


def describe(error: BaseException) -> str:
    """An exception in one line, its type first, whatever its own str() does."""
    first = next(iter(text_of(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first:.500}".rstrip(": ")


def text_of(error: BaseException) -> str:
    """What an exception says; one whose str() raises says that."""
    try:
        return str(error)
    except BaseException as another:
        return f"(its message cannot be shown: str() raises {type(another).__name__})"
