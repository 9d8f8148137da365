"""One call of a teacher's API: what is asked, what comes back, and how it can fail."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from chainforge.records import Message

LONGEST_MESSAGE = 500
TURNED_AWAY = frozenset({503, 529})  # before any work; the second is Anthropic's
# What error codes and types in words mean, by a part of them; the first that fits.
SAID: Mapping[str, int] = {
    "ratelimit": 429,
    "toomany": 429,
    "throttl": 429,
    "overload": 503,
    "unavailable": 503,
    "apikey": 401,
    "authentication": 401,
    "unauthorized": 401,
    "insufficientquota": 402,  # OpenAI's, with the status 429
    "balance": 402,
    "billing": 402,
    "permission": 403,
    "forbidden": 403,
    "accessdenied": 403,
    "notfound": 404,
    "invalidrequest": 400,
    "badrequest": 400,
    "contextlength": 400,
    "timeout": 504,
    "internal": 500,
    "servererror": 500,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One question to a teacher.

    `messages` hold no reasoning of earlier turns. `label` is "SEED/PROMPT/SAMPLE/ATTEMPT", percent-encoded,
    at most 512 ASCII characters: a client sends it as the header X-Client-Request-Id, by which a provider can
    find the request. `seed` is one for each prompt and sample, for providers that take one. `max_tokens`
    bounds reasoning and answer together. With `on_text`, the client streams, and tells it how many characters
    came.
    """

    messages: tuple[Message, ...]
    label: str
    seed: int
    max_tokens: int
    on_text: Callable[[int], None] | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens billed. `hit` and `miss` are those of the prompt, by whether the provider had them cached;
    `output` includes the `reasoning`."""

    hit: int
    miss: int
    output: int
    reasoning: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a provider's JSON says. `finish` is OpenAI's finish_reason, or what the provider wrote instead.

    `source` is where the reasoning was found, None where there was none. `synthetic` marks a mock's.
    """

    reasoning: str
    content: str
    source: str | None
    finish: str
    usage: Usage
    model: str
    synthetic: bool = False


class CallFailed(Exception):
    """A call without a whole answer. Its text is one line, not too long, and never holds a key.

    `status` is the HTTP status of a refusal, None where the connection or the body failed. `retry_after` is
    what the provider asked for, in seconds. `billed` is whether it may have cost money all the same.
    `partial` is what had arrived, `raw_text` a body that could not be read, as it came.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        billed: bool = True,
        partial: Mapping[str, Any] | None = None,
        raw_text: str | None = None,
    ) -> None:
        super().__init__(" ".join(message.split())[:LONGEST_MESSAGE])
        self.status = status
        self.retry_after = retry_after
        self.billed = billed
        self.partial = partial
        self.raw_text = raw_text


def refusal(status: int, message: str, retry_after: str = "") -> CallFailed:
    """An HTTP error in place of an answer; `retry_after` is that header, empty if there is none.

    A server that broke, or gave up, may have written an answer all the same, and charge for it: every 5xx but
    those that turn a call away, and 408.
    """
    return CallFailed(
        message,
        status=status,
        retry_after=seconds_of(retry_after, datetime.now(UTC)),
        billed=status == 408 or (status >= 500 and status not in TURNED_AWAY),
    )


def status_of(error: object) -> int | None:
    """The HTTP status that an error object in a provider's JSON amounts to, by its code or its type.

    >>> status_of({"code": 429, "message": "slow down"})
    429
    >>> status_of({"type": "invalid_request_error", "code": "invalid_api_key"})
    401
    >>> status_of({"message": "it broke"}) is None
    True
    """
    if not isinstance(error, Mapping):
        return None
    said = [str(error[name]) for name in ("code", "status", "status_code", "type") if error.get(name)]
    numbers = (int(word) for word in said if word.isascii() and word.isdecimal() and len(word) == 3)
    plain = ["".join(filter(str.isalpha, word)).casefold() for word in said]
    words = (status for word in plain for part, status in SAID.items() if part in word)
    return next((number for number in numbers if 400 <= number < 600), None) or next(words, None)


def seconds_of(retry_after: str, now: datetime) -> float | None:
    """How long `Retry-After` asks to wait: a number, or the date of the end; None for anything else."""
    if retry_after.isascii() and retry_after.replace(".", "", 1).isdecimal():
        return float(retry_after)
    try:
        end = parsedate_to_datetime(retry_after)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, (end.replace(tzinfo=end.tzinfo or UTC) - now).total_seconds())
