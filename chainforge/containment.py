"""Run a stranger's code without letting it speak for us, end the process, or wait for the keyboard."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from posix import _exit
from typing import Any, TypeVar

from chainforge.errors import ChainForgeError

Item = TypeVar("Item")
real_exit = _exit  # the one in `os` may be replaced by now

STDOUT, STDERR = 1, 2
NOTICE_S = 60.0  # without an item, before the user is told who is waited for
Farewell = Callable[[], None]
farewells: list[Farewell] = []  # called before the program ends on its own: nothing else would say why


LEAVING = (
    "_exit",
    "execv",
    "execve",
)  # functions of `os` that end a program with an exit code of their choice


class Left(Exception):
    """A stranger's code tried to end this process: exit code 0 would look like success."""


@contextmanager
def no_leaving() -> Iterator[None]:
    """Within the block, code that wants to end this process gets an error instead."""
    undo = forbid_leaving()
    try:
        yield
    finally:
        undo()


def forbid_leaving() -> Callable[[], None]:
    """`os._exit` and the like raise Left in this process, but not in those that are forked from it.

    Returns what undoes it. C code can still end the process.
    """
    before: dict[str, Any] = {name: getattr(os, name) for name in LEAVING}
    owner = os.getpid()

    def guarded(name: str) -> Callable[..., Any]:
        def leave(*arguments: Any, **options: Any) -> Any:
            if os.getpid() != owner:
                return before[name](*arguments, **options)
            raise Left(f"os.{name} was called, which would end the whole process")

        return leave

    for name in LEAVING:
        setattr(os, name, guarded(name))

    def undo() -> None:
        for name, function in before.items():
            setattr(os, name, function)

    return undo


@contextmanager
def printing_to_stderr() -> Iterator[None]:
    """What is printed goes to stderr, by child processes and native code too: stdout is for results."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        with contextlib.suppress(OSError, ValueError):  # without a stdout there is nothing to protect
            saved = os.dup(STDOUT)
            stack.callback(os.close, saved)
            if sys.__stdout__:
                sys.__stdout__.flush()
            os.dup2(STDERR, STDOUT)
            stack.callback(os.dup2, saved, STDOUT)
        yield


@contextmanager
def no_input() -> Iterator[None]:
    """`input()` finds nothing, in place of waiting for somebody at the keyboard."""
    before = sys.stdin
    with open(os.devnull, encoding="utf-8") as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = before


class Raised(Exception):
    """What a stranger's iterator raised, whatever it was; it is the cause."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__()
        self.cause = cause


def contain(items: Iterable[Item], who: str, notice_s: float = NOTICE_S) -> Iterator[Item]:
    """The items of a stranger's iterator. Raises Raised for what comes from there, but for the user's Ctrl-C
    and a ChainForgeError, which has its message already.

    Where nothing comes for long, who is waited for is said on stderr: only the user can tell slow from stuck.
    """
    with _noticing(who, notice_s) as came:
        try:
            with no_leaving():
                iterator = iter(items)
        except ChainForgeError:
            raise
        except Exception as error:
            raise Raised(error) from error
        while True:
            try:
                with no_leaving():
                    item = next(iterator)
            except StopIteration:
                return
            except (KeyboardInterrupt, ChainForgeError):
                raise
            except BaseException as error:
                raise Raised(error) from error
            yield item
            came()


@contextmanager
def _noticing(who: str, notice_s: float) -> Iterator[Callable[[], None]]:
    over, last = threading.Event(), [time.monotonic()]

    def watch() -> None:
        while not over.wait(notice_s):
            silent = time.monotonic() - last[0]
            if silent >= notice_s:
                sys.stderr.write(f"\n{who} has given nothing for {silent:.0f} s; Ctrl-C stops it\n")

    def came() -> None:
        last[0] = time.monotonic()

    threading.Thread(target=watch, name=f"notices of {who}", daemon=True).start()
    try:
        yield came
    finally:
        over.set()
