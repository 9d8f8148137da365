"""What every dialect can put into words."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from chainforge.mock_teacher.draft import Draft

KINDS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class Dialect(Protocol):
    """How one provider words an answer, a stream of it, and an error."""

    @property
    def name(self) -> str:
        """As `--dialect` takes it."""

    def body(self, draft: Draft) -> Mapping[str, Any]:
        """The whole answer."""

    def events(self, draft: Draft, *, with_usage: bool) -> Iterable[bytes]:
        """The answer as server-sent events, a token each."""

    def error(self, status: int, message: str) -> Mapping[str, Any]:
        """The body of a refusal."""

    def error_event(self, message: str) -> bytes:
        """A refusal in the middle of a stream."""

    def models(self, names: Sequence[str]) -> Mapping[str, Any]:
        """The list of models."""


def event(data: Mapping[str, Any], name: str | None = None) -> bytes:
    """One server-sent event."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + orjson.dumps(data) + b"\n\n"


def kind_of(status: int) -> str:
    """What the providers call that sort of error."""
    return KINDS.get(status, "invalid_request_error")
