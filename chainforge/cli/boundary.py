"""The one place where errors become messages: of every command, whatever it raises."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from chainforge.defuse import defuse
from chainforge.errors import ChainForgeError
from chainforge.run.crash import tell

BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell reports it


@contextmanager
def boundary() -> Iterator[None]:
    """Turn what goes wrong inside into one message and an exit code: click shows it."""
    try:
        yield
        flush()
    except (click.ClickException, click.Abort, click.exceptions.Exit):
        raise
    except ChainForgeError as error:
        raise click_error(str(error), error.exit_code) from None
    except OSError as error:
        if error.errno == errno.EPIPE:  # `| head -1`: the reader has left
            drop_output()
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        if error.errno == errno.ENOSPC:
            drop_output()
            what = "there is no room left, on the disk or where standard output goes"
            raise click_error(f"{what}\n  -> free some space (chainforge gc), then run it again") from None
        place = f" ({error.filename})" if error.filename else ""
        fix = "check that path and its permissions, then run the same command again"
        raise click_error(f"{error.strerror or error}{place}\n  -> {fix}") from None
    except MemoryError:
        raise click_error("there is not enough memory\n  -> end other programs, then run it again") from None
    except Exception as error:
        raise click_error(tell("chainforge", error)) from None


def click_error(text: str, exit_code: int = 1) -> click.ClickException:
    """What click shows on stderr."""
    error = click.ClickException(defuse(text))
    error.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance
    return error


def open_output() -> None:
    """Make sure of standard output and error. Raises ClickException where output was closed beforehand."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    if sys.stdout is None:  # the next file to be opened would take its number
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        raise click_error("standard output is closed\n  -> leave it open, or send it to a file: > FILE")
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # a name that this encoding lacks is no reason to fail
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def flush() -> None:
    """Now, and not when nobody is left to tell."""
    sys.stdout.flush()


def drop_output() -> None:
    """Let what is left in the buffer go nowhere, so that Python does not stumble over it at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
