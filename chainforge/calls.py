"""One call of a teacher's API: what is asked, what comes back, and how it can fail."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from chainforge.records import Message

LONGEST_MESSAGE = 500
# A gateway lost patience, or lost what came: the model behind it may have written its answer all the same.
GATEWAY_GAVE_UP = frozenset({408, 502, 504, 520, 522, 524})


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
    """An HTTP error in place of an answer; `retry_after` is that header, empty if there is none."""
    return CallFailed(
        message,
        status=status,
        retry_after=seconds_of(retry_after, datetime.now(UTC)),
        billed=status in GATEWAY_GAVE_UP,
    )


def seconds_of(retry_after: str, now: datetime) -> float | None:
    """How long `Retry-After` asks to wait: a number, or the date of the end; None for anything else."""
    if retry_after.isascii() and retry_after.replace(".", "", 1).isdecimal():
        return float(retry_after)
    try:
        end = parsedate_to_datetime(retry_after)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, (end.replace(tzinfo=end.tzinfo or UTC) - now).total_seconds())
