"""What of an answer is shown, and how: dimmed, plain, or with its tags."""

import os
import sys

import click

from chainforge.cli.chat_parts import Piece
from chainforge.cli.show import show
from chainforge.defuse import defuse


class Screen:
    """Shows an answer piece by piece on standard output; notes go to standard error.

    On a terminal the reasoning is dimmed, or stands in its tags where the terminal cannot dim. Elsewhere it
    is left out. `raw`: everything, as the model wrote it. What a terminal would obey becomes visible.
    """

    def __init__(self, *, raw: bool) -> None:
        terminal = sys.stdout.isatty()
        dims = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._raw, self._hides = raw or (terminal and not dims), not terminal and not raw
        self._begun = False  # something stands in this line
        self._fresh = True  # nothing of this part was shown yet

    @property
    def about(self) -> str:
        """How answers are shown, in words."""
        return "The whole response is shown" if self._raw else "The reasoning is dimmed"

    def add(self, piece: Piece) -> None:
        """Show one piece."""
        kind, text = piece
        if self._raw:
            return self._write(text)
        if kind == "tag":
            self._fresh = True
            return None
        if kind == "reasoning" and self._hides:
            return None
        if self._fresh:  # each part begins in a line of its own
            text = text.lstrip()
            if text:
                self.end()
                self._fresh = False
        return self._write(text, dim=kind == "reasoning")

    def end(self) -> None:
        """The answer has ended."""
        if self._begun:
            self._write("\n")
            self._fresh = True

    def note(self, text: str) -> None:
        """Say something that is no answer."""
        self.end()
        show(f"({text})", err=True)

    def _write(self, text: str, *, dim: bool = False) -> None:
        if text:
            shown = defuse(text)
            click.echo(click.style(shown, dim=True) if dim else shown, nl=False)
            sys.stdout.flush()
            self._begun = not text.endswith("\n")
