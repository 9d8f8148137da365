"""A response byte for byte: what is sent, how fast, how it ends, and how faults break it on its way."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson

JSON = "application/json"
EVENTS = "text/event-stream"
Ending = Literal["whole", "short", "reset", "endless", "hang"]
BLANKS = 5
HTML = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body>\r\n</html>\r\n"
SPLIT_PAUSE_S = 0.01  # or the pieces would arrive as one


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """First the `silence`, a piece each `silence_s` seconds, then the `pieces`, one each `pause_s`.

    Without a `length`, the body is chunked. It ends "whole"; "short", the connection closed, though in good
    order; with a "reset"; never, the silence going on ("endless"); or it never begins ("hang").
    """

    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: tuple[bytes, ...] = ()
    pause_s: float = 0.0
    length: int | None = None
    silence: tuple[bytes, ...] = ()
    silence_s: float = 0.0
    ending: Ending = "whole"

    @property
    def streams(self) -> bool:
        """Whether it is one of server-sent events."""
        return self.content_type == EVENTS

    @property
    def body(self) -> bytes:
        """All pieces."""
        return b"".join(self.pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a fault may need besides the response: times, and how the provider words an error."""

    retry_after_s: float
    blank_s: float
    drip_s: float
    error: Mapping[str, Any]
    error_event: bytes


def make_json(value: Mapping[str, Any], status: int = 200, retry_after_s: float | None = None) -> Response:
    """A body of JSON in one piece."""
    data = orjson.dumps(value)
    headers = {} if retry_after_s is None else {"Retry-After": f"{retry_after_s:g}"}
    return Response(status=status, headers=headers, pieces=(data,), length=len(data))


def make_stream(events: Iterable[bytes], tokens_per_s: float | None) -> Response:
    """Events one by one, or, without a pace, all at once."""
    pause_s = 1 / tokens_per_s if tokens_per_s else 0.0
    return Response(content_type=EVENTS, pieces=tuple(events), pause_s=pause_s)


def make_event(data: Mapping[str, Any], name: str | None = None) -> bytes:
    """One server-sent event."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + orjson.dumps(data) + b"\n\n"


def add_retry_after(response: Response, scene: Scene) -> Response:
    return replace(response, headers={**response.headers, "Retry-After": f"{scene.retry_after_s:g}"})


def show_html(response: Response, scene: Scene) -> Response:
    return replace(response, content_type="text/html", pieces=(HTML,), length=len(HTML))


def start_with_blanks(response: Response, scene: Scene) -> Response:
    return replace(response, silence=(b"\n",) * BLANKS, silence_s=scene.blank_s, length=None)


def start_with_comments(response: Response, scene: Scene) -> Response:
    return replace(response, silence=(b": keep-alive\n\n",) * BLANKS, silence_s=scene.blank_s)


def send_blanks_only(response: Response, scene: Scene) -> Response:
    return replace(start_with_blanks(response, scene), pieces=())


def send_blanks_for_ever(response: Response, scene: Scene) -> Response:
    return replace(start_with_blanks(response, scene), silence=(b"\n",), ending="endless")


def send_nothing(response: Response, scene: Scene) -> Response:
    return replace(response, pieces=(), length=0)


def hang(response: Response, scene: Scene) -> Response:
    return replace(response, ending="hang")


def reset_before(response: Response, scene: Scene) -> Response:
    return replace(response, pieces=(), ending="reset")


def reset_midway(response: Response, scene: Scene) -> Response:
    return replace(response, pieces=_begin(response), ending="reset")


def cut(response: Response, scene: Scene) -> Response:
    """A stream ends in good order, as if it were over; other bodies before their length."""
    return replace(response, pieces=_begin(response), ending="whole" if response.streams else "short")


def lose_bracket(response: Response, scene: Scene) -> Response:
    """The closing bracket is missing; in a stream, in one of the events."""
    if not response.streams:
        return replace(response, pieces=(response.body[:-1],), length=len(response.body) - 1)
    *before, broken = start = _begin(response)
    after = response.pieces[len(start) :]
    return replace(response, pieces=(*before, broken.rstrip()[:-1] + b"\n\n", *after))


def send_error_event(response: Response, scene: Scene) -> Response:
    return replace(response, pieces=(*_begin(response), scene.error_event))


def send_error(response: Response, scene: Scene) -> Response:
    """JSON of an error under status 200, even where a stream was asked for."""
    return make_json(scene.error)


def drip(response: Response, scene: Scene) -> Response:
    """Byte by byte."""
    pieces = tuple(bytes([byte]) for byte in response.body)
    return replace(response, pieces=pieces, pause_s=scene.drip_s / max(1, len(pieces)))


def split_characters(response: Response, scene: Scene) -> Response:
    """Cut before each character's second byte."""
    return replace(response, pieces=tuple(_split(response.body)), pause_s=SPLIT_PAUSE_S)


def _begin(response: Response) -> tuple[bytes, ...]:
    """A third of the events, at least one, so that some text comes and no finish; or half of the body."""
    if response.streams:
        return response.pieces[: max(1, len(response.pieces) // 3)]
    return (response.body[: len(response.body) // 2],)


def _split(body: bytes) -> Iterator[bytes]:
    start = 0
    for i in range(1, len(body)):
        if body[i - 1] >= 0xC0:  # the byte before begins a character of several
            yield body[start:i]
            start = i
    yield body[start:]
