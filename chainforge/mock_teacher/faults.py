"""Every fault by its name: what it does, what a good client makes of it, and who pays."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from chainforge.mock_teacher import spoil, wreck
from chainforge.mock_teacher.draft import Draft
from chainforge.mock_teacher.plan import Plan

Then = Literal["answered", "retry", "keep", "skip", "stop"]
Spoil = Callable[[Draft], Draft]
Wreck = Callable[[Plan, wreck.Scene], Plan]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way in which a request can go wrong.

    - `then`: "answered", the answer arrives whole all the same; "retry", asking again gets one; "keep", a
      paid answer to keep, though not to train on; "skip", this prompt gets none, however often it is asked;
      "stop", no request does.
    - `billed`: whether the provider takes money for it.
    - `whole`: whether choices, a finish reason and usage reach the client.
    - `applies`: to which requests. Others get the fault named `otherwise`, or their answer.
    - `status` and `message`: of a refusal.
    - `spoil` changes the answer, `wreck` the response; `dialect` words it as another provider would,
      unless Anthropic's API is asked.
    """

    name: str
    about: str
    then: Then
    billed: bool = True
    whole: bool = False
    applies: Literal["both", "stream", "json"] = "both"
    otherwise: str | None = None
    status: int = 200
    message: str = "injected by the mock"
    spoil: Spoil | None = None
    wreck: Wreck | None = None
    dialect: str | None = None

    @property
    def recoverable(self) -> bool:
        """Whether the same request, asked again, gets its answer."""
        return self.then == "retry"


def _refusal(name: str, status: int, then: Then, about: str, message: str = "injected by the mock") -> Fault:
    return Fault(name=name, about=about, then=then, status=status, billed=False, message=message)


def _spoilt(name: str, effect: Spoil, then: Then, about: str, whole: bool = True) -> Fault:
    return Fault(name=name, about=about, then=then, whole=whole, spoil=effect)


def _lost(name: str, effect: Wreck, about: str, *, billed: bool = False) -> Fault:
    return Fault(name=name, about=about, then="retry", billed=billed, wreck=effect)


def _worded(dialect: str, about: str) -> Fault:
    name = f"dialect_{dialect.replace('-', '_')}"
    return Fault(name=name, about=about, then="answered", whole=True, dialect=dialect)


_REFUSALS = (
    _refusal("rate_limited", 429, "retry", "too many requests, and no word when to come back"),
    Fault(
        name="rate_limited_retry_after",
        about="too many requests; Retry-After says when to come back",
        then="retry",
        status=429,
        billed=False,
        wreck=wreck.with_retry_after,
    ),
    _refusal("server_error", 500, "retry", "the provider broke"),
    Fault(
        name="bad_gateway",
        about="a proxy's page in HTML",
        then="retry",
        status=502,
        billed=False,
        wreck=wreck.as_html,
    ),
    Fault(
        name="gateway_timeout",
        about="a proxy gave up, while the answer was written all the same",
        then="retry",
        status=504,
    ),
    _refusal("overloaded", 503, "retry", "the provider is overloaded"),
    _refusal("overloaded_529", 529, "retry", "the same, as Anthropic says it"),
    _refusal("request_timeout", 408, "retry", "the provider waited too long"),
    _refusal("conflict", 409, "retry", "two requests at odds"),
    _refusal("bad_request", 400, "skip", "this prompt is not accepted", "this prompt cannot be answered"),
    _refusal("unprocessable", 422, "skip", "a parameter is not accepted for this prompt"),
    _refusal("unauthorized", 401, "stop", "the key is not valid"),
    _refusal("payment_required", 402, "stop", "no money left", "Insufficient Balance"),
    _refusal("forbidden", 403, "stop", "the key may not do this"),
    _refusal(
        "unknown_model", 400, "stop", "a model that was retired, as DeepSeek says it", "Model Not Exist"
    ),
    _refusal("model_not_found", 404, "stop", "a model that was retired, as others say it", "no such model"),
)
_SPOILT = (
    _spoilt("length", spoil.cut_off, "keep", "out of tokens in the middle of the reasoning"),
    _spoilt("content_filter", spoil.filtered, "keep", "a filter stopped the content half-way"),
    _spoilt("unknown_finish", spoil.oddly_finished, "keep", "a finish reason that nobody knows"),
    _spoilt("insufficient_system_resource", spoil.interrupted, "retry", "interrupted in the reasoning"),
    _spoilt("null_content", spoil.without_text, "retry", "content and reasoning are null"),
    _spoilt("no_reasoning", spoil.without_reasoning, "retry", "the content without any reasoning"),
    _spoilt("no_choices", spoil.without_choices, "retry", "no choices, though usage", whole=False),
    _spoilt("missing_usage", spoil.without_usage, "retry", "everything but the usage", whole=False),
    _spoilt("missing_finish", spoil.without_finish, "retry", "everything but the finish reason", whole=False),
    Fault(
        name="duplicate_usage",
        about="the usage in two chunks; nothing where there is no stream",
        then="answered",
        whole=True,
        applies="stream",
        spoil=spoil.with_usage_twice,
    ),
)
_WRECKED = (
    Fault(
        name="blank_lines",
        about="blank lines before the body",
        then="answered",
        whole=True,
        wreck=wreck.blank_lines_first,
    ),
    Fault(
        name="keep_alive_comments",
        about="comments before the events",
        then="answered",
        whole=True,
        applies="stream",
        otherwise="blank_lines",
        wreck=wreck.comments_first,
    ),
    Fault(name="slow_drip", about="byte by byte", then="answered", whole=True, wreck=wreck.drip),
    Fault(
        name="split_utf8",
        about="characters cut between their bytes",
        then="answered",
        whole=True,
        spoil=spoil.beyond_ascii,
        wreck=wreck.split_characters,
    ),
    _lost("blank_lines_endless", wreck.blank_lines_for_ever, "blank lines until the client leaves"),
    _lost("blank_lines_only", wreck.blank_lines_only, "status 200, blank lines, the end"),
    _lost("empty_body", wreck.empty, "status 200 and nothing"),
    _lost("error_in_200", wreck.error_instead, "status 200 and the JSON of an error"),
    _lost("reset_before", wreck.reset_before, "the connection is reset before any byte"),
    _lost("hang", wreck.hang, "no byte ever"),
    _lost("reset_midway", wreck.reset_midway, "the connection is reset in the body", billed=True),
    _lost("bad_json", wreck.bad_json, "a bracket is missing, in a stream from one event", billed=True),
    Fault(
        name="cut_json",
        about="the body ends before its length",
        then="retry",
        applies="json",
        otherwise="cut_stream",
        wreck=wreck.cut,
    ),
    Fault(
        name="cut_stream",
        about="the stream ends without finish reason or [DONE]",
        then="retry",
        applies="stream",
        otherwise="cut_json",
        wreck=wreck.cut,
    ),
    Fault(
        name="error_event",
        about="an error among the events",
        then="retry",
        applies="stream",
        otherwise="error_in_200",
        wreck=wreck.error_event,
    ),
)
_WORDED = (
    _worded("deepseek", "reasoning in `reasoning_content`, usage in hits and misses"),
    _worded("vllm", "reasoning in `reasoning`"),
    _worded("openrouter", "reasoning in `reasoning` and `reasoning_details`"),
    _worded("inline", "reasoning in the content, between <think> tags"),
    _worded("inline-unopened", "the same without the opening tag"),
    _worded("kimi", "reasoning in the content, between ◁think▷ tags"),
)
FAULTS = {fault.name: fault for fault in (*_REFUSALS, *_SPOILT, *_WRECKED, *_WORDED)}


def on_wire(fault: Fault | None, *, stream: bool) -> Fault | None:
    """The fault that a request of this sort gets instead."""
    if fault is None or fault.applies in ("both", "stream" if stream else "json"):
        return fault
    return FAULTS[fault.otherwise] if fault.otherwise else None
