"""Run a stranger's code without letting it speak for us, end the process, or wait for the keyboard."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from posix import _exit
from typing import NoReturn, TypeVar

Item = TypeVar("Item")
real_exit = _exit  # that of `os` may be replaced already

STDOUT, STDERR = 1, 2
NOTICE_S = 60.0  # between two items, before one is told what is waited for
Farewell = Callable[[], None]
farewells: list[Farewell] = []  # called before the program ends by itself, so that nobody else tells


@contextmanager
def no_exit() -> Iterator[None]:
    """`os._exit` raises SystemExit: exit code 0 would look like success. Children of a fork may exit."""
    owner, before = os.getpid(), os._exit

    def refuse(status: int = 0) -> NoReturn:
        if os.getpid() != owner:
            real_exit(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = before


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


def contained(items: Iterable[Item], who: str, notice_s: float = NOTICE_S) -> Iterator[Item]:
    """The items of a stranger's iterator. Raises Raised for all that comes from there but the user's Ctrl-C.

    Where nothing comes for long, who is waited for is said on stderr: only the user can tell slow from stuck.
    """
    with _noticing(who, notice_s) as came:
        try:
            with no_exit():
                iterator = iter(items)
        except Exception as error:
            raise Raised(error) from error
        while True:
            try:
                with no_exit():
                    item = next(iterator)
            except StopIteration:
                return
            except KeyboardInterrupt:
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
