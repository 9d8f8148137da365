"""Every fault by its name: what it does, what a good client makes of it, and who pays."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from chainforge.mock_teacher import response
from chainforge.mock_teacher.draft import Draft, cut_reasoning, drop_reasoning, filter_content

Then = Literal["answered", "retry", "keep", "skip", "stop"]
Spoil = Callable[[Draft], Draft]
Wreck = Callable[[response.Response, response.Scene], response.Response]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which a request can go wrong.

    - `then`: "answered", the client has its answer all the same; "retry", asking again gets one; "keep", a
      paid answer to keep, though not to train on; "skip", this prompt gets none, however often it is asked;
      "stop", no request does.
    - `only`: the responses that can have it; the other sort gets what INSTEAD says, or its answer.
    - `billed`: whether the provider takes money for it.
    - `whole`: whether choices, a finish reason and usage reach the client.
    - `status` and `message`: of a refusal.
    - `spoil` changes the answer, `wreck` the response; `dialect` words it as another provider would,
      unless Anthropic's API is asked.
    """

    name: str
    then: Then
    about: str
    only: Literal["stream", "json"] | None = None
    billed: bool = True
    whole: bool = False
    status: int = 200
    message: str = "injected by the mock"
    spoil: Spoil | None = None
    wreck: Wreck | None = None
    dialect: str | None = None


def _refuse(name: str, status: int, then: Then, about: str, **more: Any) -> Fault:
    return Fault(name, then, about, status=status, **{"billed": False} | more)


def _spoil(name: str, then: Then, about: str, spoil: Spoil, **more: Any) -> Fault:
    return Fault(name, then, about, spoil=spoil, **{"whole": True} | more)


def _delay(name: str, about: str, wreck: Wreck, **more: Any) -> Fault:
    return Fault(name, "answered", about, whole=True, wreck=wreck, **more)


def _lose(name: str, about: str, wreck: Wreck, **more: Any) -> Fault:
    return Fault(name, "retry", about, wreck=wreck, **{"billed": False} | more)


def _speak(dialect: str, about: str) -> Fault:
    return Fault(f"dialect_{dialect.replace('-', '_')}", "answered", about, whole=True, dialect=dialect)


def _set(**fields: Any) -> Spoil:
    return lambda draft: replace(draft, **fields)


_ALL = (
    _refuse("rate_limited", 429, "retry", "too many requests, and no word when to come back"),
    _refuse(
        "rate_limited_retry_after",
        429,
        "retry",
        "too many requests; Retry-After says when to come back",
        wreck=response.add_retry_after,
    ),
    _refuse("server_error", 500, "retry", "the provider broke"),
    _refuse("bad_gateway", 502, "retry", "a proxy's page in HTML", wreck=response.show_html),
    _refuse("gateway_timeout", 504, "retry", "a proxy gave up, while the answer was written", billed=True),
    _refuse("overloaded", 503, "retry", "the provider is overloaded"),
    _refuse("overloaded_529", 529, "retry", "the same, as Anthropic says it"),
    _refuse("request_timeout", 408, "retry", "the provider waited too long"),
    _refuse("conflict", 409, "retry", "two requests at odds"),
    _refuse(
        "bad_request", 400, "skip", "this prompt is not accepted", message="this prompt cannot be answered"
    ),
    _refuse("unprocessable", 422, "skip", "a parameter is not accepted for this prompt"),
    _refuse("unauthorized", 401, "stop", "the key is not valid"),
    _refuse("payment_required", 402, "stop", "no money left", message="Insufficient Balance"),
    _refuse("forbidden", 403, "stop", "the key may not do this"),
    _refuse("unknown_model", 400, "stop", "a retired model, as DeepSeek says it", message="Model Not Exist"),
    _refuse("model_not_found", 404, "stop", "a retired model, as others say it", message="no such model"),
    _spoil("length", "keep", "out of tokens in the reasoning", partial(cut_reasoning, finish="length")),
    _spoil("content_filter", "keep", "a filter stopped the content half-way", filter_content),
    _spoil("unknown_finish", "keep", "a finish reason that nobody knows", _set(finish="mystery")),
    _spoil(
        "insufficient_system_resource",
        "retry",
        "interrupted in the reasoning",
        partial(cut_reasoning, finish="insufficient_system_resource"),
    ),
    _spoil("null_content", "retry", "content and reasoning are null", _set(reasoning=None, content=None)),
    _spoil("no_reasoning", "retry", "the content without any reasoning", drop_reasoning),
    _spoil("no_choices", "retry", "no choices, though usage", _set(choices=False), whole=False),
    _spoil("missing_usage", "answered", "all but the usage", _set(usage_copies=0), whole=False),
    _spoil("missing_finish", "retry", "all but the finish reason", _set(finish=None), whole=False),
    _spoil("duplicate_usage", "answered", "the usage in two chunks", _set(usage_copies=2), only="stream"),
    _delay("blank_lines", "blank lines before the body", response.start_with_blanks),
    _delay("keep_alive_comments", "comments before the events", response.start_with_comments, only="stream"),
    _delay("slow_drip", "byte by byte", response.drip),
    _delay(
        "split_utf8",
        "characters cut between their bytes",
        response.split_characters,
        spoil=_set(extra={"note": "naïve café, 東京, ☕"}),
    ),
    _lose("blank_lines_endless", "blank lines until the client leaves", response.send_blanks_for_ever),
    _lose("blank_lines_only", "status 200, blank lines, the end", response.send_blanks_only),
    _lose("empty_body", "status 200 and nothing", response.send_nothing),
    _lose("error_in_200", "status 200 and the JSON of an error", response.send_error),
    _lose("reset_before", "the connection is reset before any byte", response.reset_before),
    _lose("hang", "no byte ever", response.hang),
    _lose("reset_midway", "the connection is reset in the body", response.reset_midway, billed=True),
    _lose("bad_json", "a bracket is missing, in a stream from one event", response.lose_bracket, billed=True),
    _lose("cut_json", "the body ends before its length", response.cut, only="json", billed=True),
    _lose("cut_stream", "a stream without finish reason or [DONE]", response.cut, only="stream", billed=True),
    _lose("error_event", "an error among the events", response.send_error_event, only="stream", billed=True),
    _speak("deepseek", "reasoning in `reasoning_content`, usage in hits and misses"),
    _speak("vllm", "reasoning in `reasoning`"),
    _speak("openrouter", "reasoning in `reasoning` and `reasoning_details`"),
    _speak("inline", "reasoning in the content, between <think> tags"),
    _speak("inline-unopened", "the same without the opening tag"),
    _speak("kimi", "reasoning in the content, between ◁think▷ tags"),
)
FAULTS = {fault.name: fault for fault in _ALL}
INSTEAD = {
    "keep_alive_comments": "blank_lines",
    "cut_json": "cut_stream",
    "cut_stream": "cut_json",
    "error_event": "error_in_200",
}


def adapt(fault: Fault, *, stream: bool) -> Fault | None:
    """The fault that a request of this sort gets instead of one that it cannot have."""
    if fault.only in (None, "stream" if stream else "json"):
        return fault
    return FAULTS[INSTEAD[fault.name]] if fault.name in INSTEAD else None
