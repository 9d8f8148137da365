"""The body of an answer as it comes, whole or streamed, well-formed or not: what was paid for is read.

Servers put a byte order mark, a log line or a second object around the JSON, stream though nobody asked, send
one piece where a stream was asked for, or announce more bytes than they have.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from chainforge.providers.chat_answer import add, choice_of, defect
from chainforge.providers.nesting import load_json, shallow_text

AROUND = "\ufeff\0 \t\r\n"
MOST_STARTS = 1000  # braces at which a JSON object is looked for in a text
ABOUT = ("id", "model", "system_fingerprint")


class Body:
    """Feed it the bytes of one response, then `end` it. `on_text` is told how many characters came."""

    def __init__(self, on_text: Callable[[int], None] | None = None) -> None:
        self.parts: dict[str, Any] = {}  # what events make up, in the form of an answer that came whole
        self.error: Any = None  # an error among the events
        self.is_broken = False  # an event that nobody can read came before the end
        self._on_text = on_text or (lambda characters: None)
        self._choices: dict[int, dict[str, Any]] = {}
        self._line = bytearray()
        self._data = ""  # of the event under way
        self._odd: list[bytes] = []  # lines that are no events

    def feed(self, came: bytes) -> None:
        """The next bytes, cut anywhere."""
        *whole, rest = came.split(b"\n")
        for line in whole:
            self._take(bytes(self._line) + line)
            self._line.clear()
        self._line += rest

    def end(self) -> None:
        """No more bytes come."""
        self._take(bytes(self._line))
        self._take(b"")
        self._line.clear()

    @property
    def text(self) -> str:
        """What came and is no event that was understood."""
        data = b"\n".join(self._odd)
        return data.decode(json.detect_encoding(data), errors="replace").strip(AROUND)

    def answer(self) -> Any:
        """The answer, or whatever else this JSON is; `raw_text` is added where it had to be looked for.

        Raises ValueError where there is nothing to read.
        """
        if self._choices:
            return self.parts | ({"raw_text": self.text} if self._odd else {})
        if self.error is not None:
            return {"error": self.error}
        return read_text(self.text)

    def _take(self, line: bytes) -> None:
        """One line: part of an event, or of a body that is none."""
        for piece in line.removesuffix(b"\r").split(b"\r"):
            if not piece.strip():
                self._event_ends()
                if self._odd and not self._choices:
                    self._odd.append(piece)  # within a text, perhaps
            elif piece.startswith(b"data:"):
                self._data += piece[5:].decode(errors="replace").removeprefix(" ")
                self._try_event()
            elif not piece.startswith((b":", b"event:", b"id:", b"retry:")):
                self._odd.append(piece)

    def _try_event(self) -> None:
        """Take what the `data:` lines so far say, if it is whole: some servers leave no line between two."""
        if self._data.strip() == "[DONE]":
            self._data = ""
            return
        try:
            said = load_json(self._data)
        except ValueError:
            self._data += "\n"  # an event of several lines
            return
        self._add(said)
        self._data = ""

    def _event_ends(self) -> None:
        if self._data.strip():
            self._odd.append(self._data.encode())
            self.is_broken |= not self._has_ended()
        self._data = ""

    def _add(self, said: Any) -> None:
        if not isinstance(said, Mapping):
            return
        if said.get("error") and not choice_of(said):
            self.error = None if self._has_ended() else said["error"]
        self.parts |= {key: said[key] for key in (*ABOUT, "usage") if said.get(key)}
        choices = said.get("choices")
        for piece in choices if isinstance(choices, list) else ():
            if isinstance(piece, Mapping):
                self._add_piece(piece)

    def _add_piece(self, piece: Mapping[str, Any]) -> None:
        number = piece.get("index") if isinstance(piece.get("index"), int) else 0
        assert isinstance(number, int)
        if number not in self._choices:
            message: dict[str, Any] = {"role": "assistant", "content": ""}
            self._choices[number] = {"index": number, "finish_reason": None, "message": message}
            self.parts["choices"] = [self._choices[known] for known in sorted(self._choices)]
        choice = self._choices[number]
        choice["finish_reason"] = piece.get("finish_reason") or choice["finish_reason"]
        said = piece.get("delta") or piece.get("message")
        self._on_text(add(choice["message"], said if isinstance(said, Mapping) else {}))

    def _has_ended(self) -> bool:
        return bool(self._choices) and all(choice["finish_reason"] for choice in self._choices.values())


def read_text(text: str) -> Any:
    """The JSON of a body, or the one answer in a text that is not JSON or wraps it. Raises ValueError."""
    try:
        value = load_json(text)
    except ValueError:
        found = list(objects_in(text))
        error = next((o for o in found if o.get("error")), None)
        if not (answer := answer_among(found)) and error is None:
            raise
        return {**(answer or error or {}), "raw_text": text}
    if isinstance(value, Mapping) and (choice_of(value) or value.get("error")):
        return value
    answer = answer_among(list(unwrap(value)))
    return value if answer is None else {**answer, "raw_text": text}


def answer_among(found: list[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The last whole answer of these objects; or what the pieces of a stream among them make up."""
    if whole := [said for said in found if not defect(said) and "message" in (choice_of(said) or {})]:
        return whole[-1]
    body = Body()
    for said in found:
        body._add(said)
    return body.parts if body._choices else None


def objects_in(text: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects in a text, whatever is around and between them."""
    decoder, start = json.JSONDecoder(strict=False), text.find("{")
    for _ in range(MOST_STARTS):
        if start < 0:
            return
        try:
            value, end = decoder.raw_decode(text, start)
        except RecursionError:
            text = shallow_text(text[start:])
            start, end = 0, 0
            continue
        except ValueError:
            end = start + 1
        else:
            yield from unwrap(value)
        start = text.find("{", end)


def unwrap(value: Any, levels: int = 3) -> Iterator[Mapping[str, Any]]:
    """The objects that may be an answer: this one, or those in it, as lists, texts or under another name."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            value = load_json(value)
        except ValueError:
            return
    if isinstance(value, Mapping):
        yield value
    inner = list(value.values()) if isinstance(value, Mapping) and "choices" not in value else value
    for part in inner if isinstance(inner, list) and levels else ():
        yield from unwrap(part, levels - 1)
