r"""Several things as one answer: `1, 2, 3`, `{1, 2}`, `(1, 2]`, `x \in (1, 2)`."""

import re
from dataclasses import dataclass

LEAD = re.compile(r"^(?:[^\W\d_]\w{0,3}|\([\w, ]{1,20}\)) ?[=∈] ?")
MOST = 1_000  # parts; more are compared as a text
OPEN, CLOSE = "([{", ")]}"


@dataclass(frozen=True, slots=True)
class Several:
    """The parts, each a text in plain notation, and the brackets around them, "" for none."""

    parts: tuple[str, ...]
    brackets: str = ""

    @property
    def ordered(self) -> bool:
        """Whether the order of the parts says something: not in a set."""
        return self.brackets != "{}"


def several(text: str) -> Several | None:
    """The parts of a list, set, point or interval, two or more; None for anything else."""
    text = LEAD.sub("", text.strip().removesuffix("."))
    brackets = ""
    if len(text) > 1 and text[0] in OPEN and text[-1] in CLOSE and wraps(text):
        brackets, text = text[0] + text[-1], text[1:-1]
    if not brackets and re.fullmatch(r"[-+$]?\d{1,3}(,\d{3})+(\.\d+)?", text):
        return None
    parts = split(text)
    if len(parts) > MOST or (len(parts) < 2 and brackets != "{}"):
        return None
    return Several(tuple(LEAD.sub("", part.strip()) for part in parts), brackets)


def wraps(text: str) -> bool:
    """Whether the first bracket closes at the end only."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in OPEN) - (letter in CLOSE)
        if depth == 0:
            return place == len(text) - 1
    return False


def split(text: str) -> list[str]:
    """The parts between commas, semicolons and `and` outside of brackets."""
    parts, depth, start = [], 0, 0
    for found in re.finditer(r",? and |[,;()\[\]{}]", text):
        if found[0] in OPEN or found[0] in CLOSE:
            depth += 1 if found[0] in OPEN else -1
        elif depth == 0:
            parts.append(text[start : found.start()])
            start = found.end()
    return [*parts, text[start:]]
