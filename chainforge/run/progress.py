"""One bar, on stderr: a live one on a terminal, a line now and then in a log. The first process shows it."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from chainforge.defuse import defuse
from chainforge.run.live import Live
from chainforge.run.world import this_world

T = TypeVar("T")
LOG_SECONDS = 30


def progress(
    items: Iterable[T],
    title: str,
    *,
    total: int | None = None,
    initial: int = 0,
    unit: str = "step",
    delay_s: float = 0.0,
    live: Live | None = None,
) -> "tqdm[T]":
    """Iterate with a progress bar, not shown before `delay_s`; `set_postfix` shows figures beside it.

    `live` writes down how far it is.
    """
    on_terminal = sys.stderr.isatty()
    if live:
        items = live.follow(items, title, unit, total, initial)
    return tqdm(
        items,
        title,
        total=total,
        initial=initial,
        unit=unit,
        delay=delay_s,
        file=sys.stderr,
        dynamic_ncols=on_terminal,
        mininterval=0.5 if on_terminal else LOG_SECONDS,
        maxinterval=10 if on_terminal else LOG_SECONDS,
        ascii=None if on_terminal else " .",
        disable=not this_world().is_first,
    )


def say(text: str) -> None:
    """One line on stderr, above a live bar."""
    if this_world().is_first:
        tqdm.write(defuse(text), file=sys.stderr)
