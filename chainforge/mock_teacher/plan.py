"""A response byte for byte: what is sent, how fast, and how it ends."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

JSON = "application/json"
EVENTS = "text/event-stream"
Ending = Literal["whole", "short", "reset", "endless", "hang"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
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


def json_plan(value: Mapping[str, Any], status: int = 200, retry_after_s: float | None = None) -> Plan:
    """A body of JSON in one piece."""
    data = orjson.dumps(value)
    headers = {} if retry_after_s is None else {"Retry-After": f"{retry_after_s:g}"}
    return Plan(status=status, headers=headers, pieces=(data,), length=len(data))


def events_plan(events: Iterable[bytes], tokens_per_s: float | None) -> Plan:
    """Events one by one, or, without a pace, all at once."""
    pause_s = 1 / tokens_per_s if tokens_per_s else 0.0
    return Plan(content_type=EVENTS, pieces=tuple(events), pause_s=pause_s)
