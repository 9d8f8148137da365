"""A response split at its tags while it is still being written."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from chainforge.response import TagFormat

Kind = Literal["reasoning", "summary", "outside", "tag"]


class Piece(NamedTuple):
    """Some of a response: what it belongs to, and the text."""

    kind: Kind
    text: str


class Splitter:
    """Takes a response in pieces of any size; the pieces that come out join to the same text.

    For a response that `TagFormat.parse` accepts, those of a kind join to what it finds. What only looks like
    the beginning of a tag is held back until it is clear whether it is one.
    """

    def __init__(self, form: TagFormat) -> None:
        r0, r1, s0, s1 = form.tags
        self._after: dict[str, Kind] = {r0: "reasoning", r1: "outside", s0: "summary", s1: "outside"}
        self._kind: Kind = "outside"
        self._held = ""

    def add(self, text: str) -> Iterator[Piece]:
        """What is clear with this text."""
        self._held += text
        while found := self._first_tag():
            before, tag, self._held = self._held.partition(found)
            if before:
                yield Piece(self._kind, before)
            yield Piece("tag", tag)
            self._kind = self._after[tag]
        clear = len(self._held) - self._length_of_a_beginning()
        if clear:
            yield Piece(self._kind, self._held[:clear])
            self._held = self._held[clear:]

    def end(self) -> Iterator[Piece]:
        """What was held back: the response has ended, so it is no tag."""
        if self._held:
            yield Piece(self._kind, self._held)
            self._held = ""

    def _first_tag(self) -> str | None:
        places = [(place, tag) for tag in self._after if (place := self._held.find(tag)) >= 0]
        return min(places)[1] if places else None

    def _length_of_a_beginning(self) -> int:
        """Of the longest end of the text that a tag begins with."""
        longest = max(map(len, self._after)) - 1
        ends = (self._held[-size:] for size in range(min(longest, len(self._held)), 0, -1))
        return next((len(end) for end in ends if any(tag.startswith(end) for tag in self._after)), 0)
