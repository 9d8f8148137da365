"""How wide a text may be, and whether it is shown whole."""

from dataclasses import dataclass
from textwrap import fill


@dataclass(frozen=True, slots=True)
class Paper:
    """How wide, and whether texts are shown whole."""

    width: int
    full: bool

    def text(self, label: str, text: str, indent: int = 4) -> str:
        """A labelled text: in one line, cut where it does not fit; or whole, with its own lines."""
        start = " " * indent + (f"{label}  " if label else "")
        if self.full:
            return start + ("\n" + " " * (indent + 2)).join(text.splitlines() or [""])
        line = " ".join(text.split())
        room = max(8, self.width - len(start))
        return start + (line if len(line) <= room else line[: room - 1] + "…")

    def prose(self, text: str, indent: int = 2) -> str:
        """Sentences, broken at the width."""
        space = " " * indent
        return fill(
            text, self.width, initial_indent=space, subsequent_indent=space + "  ", break_long_words=False
        )
