"""What can come back from a chat server that is not an honest answer, and what a good client makes of it.

A line is a name, what becomes of the question, and the response. What becomes of it:

- answered: the answer is there at the first call, in spite of all;
- again: the call is lost, and the next one gets the answer;
- kept: a paid answer that is no training data; it is not asked for again;
- skipped: this question is refused, at the second call too, and the others are not;
- stops: all questions are refused from there on, so the run ends.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal

from odd_answers import DONE, bill, chunked, dumps, event, events, framed, honest, mark
from odd_server import CLOSE, HANG, RESET, Asked, Said, Step, http

Then = Literal["answered", "again", "kept", "skipped", "stops"]
Respond = Callable[[Asked, dict[str, Any]], Sequence[Step]]
Wire = Literal["whole", "streamed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Odd:
    """`billed`: the server takes its price. `readable`: so the journal must have what it said.

    `same`: what is kept in the end is what an honest server would have said. `code` is that of a stop, be it
    behind the last answer. `exact`: what it says it costs is what it costs. `silent` ones need a deadline.
    """

    name: str
    then: Then
    respond: Respond
    billed: bool = True
    readable: bool = True
    same: bool = True
    exact: bool = False
    silent: bool = False
    code: int = 0
    only: Wire | None = None
    also: int = 0  # tokens that are billed besides

    def __call__(self, asked: Asked) -> Said:
        answer = honest(asked)
        taken, written = bill(answer)
        steps = self.respond(asked, answer)
        tokens = (taken, written + self.also) if self.billed else (0, 0)
        return Said(steps=steps, tokens=tokens, mark=mark(asked) if self.readable else "", fault=self.name)


# Refusals. -----------------------------------------------------------------------------------------------
def refusal(
    name: str,
    status: int,
    then: Then,
    said: Any = None,
    *,
    code: int = 0,
    billed: bool = False,
    head: Callable[[], Mapping[str, str]] = lambda: {},
) -> Odd:
    """An HTTP error; without `said`, as OpenAI words it."""
    words = {"error": {"message": f"no: {status}", "type": "odd_error", "param": None, "code": None}}
    body = said if isinstance(said, bytes) else dumps(words if said is None else said)
    kind = {"content-type": "text/html"} if body.startswith(b"<") else {}
    return Odd(
        name=name,
        then=then,
        respond=lambda asked, answer: [http(status, body, kind | dict(head()))],
        billed=billed,
        readable=False,
        code=code,
    )


HTML = b"<!doctype html><html><body><h1>Sorry</h1>[/x] 'no' {no}</body></html>"
DETAIL = {
    "detail": [{"type": "string_too_long", "loc": ["body", "messages", 0], "msg": "too long", "input": "x"}]
}


def later(seconds: int) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


def wait(name: str, value: Callable[[], str], status: int = 429) -> Odd:
    return refusal(f"retry_after_{name}", status, "again", head=lambda: {"retry-after": value()})


REFUSALS = [
    refusal("400_json", 400, "skipped"),
    refusal("400_html", 400, "skipped", HTML),
    refusal("400_empty", 400, "skipped", b""),
    refusal("400_text", 400, "skipped", b"Bad Request"),
    refusal("400_null", 400, "skipped", b"null"),
    refusal("400_list", 400, "skipped", [{"error": "no"}]),
    refusal("400_error_is_text", 400, "skipped", {"error": "no"}),
    refusal("400_error_is_list", 400, "skipped", {"error": [None, 3]}),
    refusal("400_nested", 400, "skipped", {"error": {"error": {"error": {"message": "no"}}}}),
    refusal("400_message_is_object", 400, "skipped", {"error": {"message": {"text": ["no"]}}}),
    refusal("400_cut_json", 400, "skipped", b'{"error": {"mess'),
    refusal("400_deep", 400, "skipped", b"[" * 5000 + b"]" * 5000),
    refusal("400_not_utf8", 400, "skipped", b'{"error": "\xff\xfe\xc3"}'),
    refusal("400_2_mb", 400, "skipped", {"error": {"message": "no " * 700_000}}),
    refusal("400_schema_must_exist", 400, "skipped", {"error": {"message": "model: that key must exist"}}),
    refusal("401_key", 401, "stops", code=3),
    refusal("401_empty", 401, "stops", b"", code=3),
    refusal("402_balance", 402, "stops", {"error": {"message": "Insufficient Balance"}}, code=4),
    refusal("403_this_prompt", 403, "skipped", {"error": {"message": "flagged", "code": 403}}),
    refusal("403_html", 403, "skipped", HTML),
    refusal("404_this_prompt", 404, "skipped", {"error": {"message": "no endpoint takes so long a prompt"}}),
    refusal("404_html", 404, "skipped", HTML),
    refusal("405", 405, "skipped"),
    refusal("406", 406, "skipped"),
    refusal("408", 408, "again"),
    refusal("408_billed", 408, "again", billed=True),
    refusal("409", 409, "again"),
    refusal("410", 410, "skipped"),
    refusal("411", 411, "skipped"),
    refusal("413", 413, "skipped", HTML),
    refusal("414", 414, "skipped"),
    refusal("415", 415, "skipped"),
    refusal("418", 418, "skipped"),
    refusal("422_detail", 422, "skipped", DETAIL),
    refusal("422_detail_is_text", 422, "skipped", {"detail": "too long"}),
    refusal("424", 424, "skipped"),
    refusal("425", 425, "again"),
    refusal("429_json", 429, "again"),
    refusal("429_empty", 429, "again", b""),
    refusal("429_html", 429, "again", HTML),
    wait("0", lambda: "0"),
    wait("negative", lambda: "-5"),
    wait("fraction", lambda: "0.02"),
    wait("empty", lambda: ""),
    wait("words", lambda: "soon"),
    wait("nan", lambda: "nan"),
    wait("inf", lambda: "inf"),
    wait("1e9", lambda: "1e9"),
    wait("unit", lambda: "1s"),
    wait("date", lambda: later(1)),
    wait("date_gone", lambda: later(-3600)),
    wait("date_far", lambda: later(10_000_000)),
    wait("date_of_nowhere", lambda: "Thu, 99 Foo 2026 99:99:99 GMT"),
    wait("huge", lambda: "9" * 400),
    wait("0_of_503", lambda: "0", 503),
    wait("huge_of_500", lambda: "99999", 500),
    refusal("431", 431, "skipped"),
    refusal("451", 451, "skipped"),
    *(refusal(str(n), n, "again") for n in (500, 502, 503, 504, 507, 508, *range(520, 530), 598, 999)),
    refusal("500_html", 500, "again", HTML),
    refusal("500_empty", 500, "again", b""),
    refusal("500_detail", 500, "again", {"detail": "Internal"}),
    refusal("500_billed", 500, "again", billed=True),
    refusal("502_billed", 502, "again", billed=True),
    refusal("504_billed", 504, "again", billed=True),
]


# Answers whose JSON is odd. ------------------------------------------------------------------------------
def says(name: str, then: Then, change: Callable[[dict[str, Any]], Any], **more: Any) -> Odd:
    """`change` takes the honest answer, and may change it in place; what it returns is said, unless None."""

    def respond(asked: Asked, answer: dict[str, Any]) -> Sequence[Step]:
        changed = change(answer)
        return framed(answer if changed is None else changed, asked)

    return Odd(name=name, then=then, respond=respond, **more)


def instead(name: str, then: Then, said: Any, code: int = 0, **more: Any) -> Odd:
    """This and no answer, with status 200."""
    free = {"billed": False, "readable": False} | more
    return says(name, then, lambda answer: said, code=code, **free)


def message(name: str, change: Callable[[dict[str, Any], str, str], Any], **more: Any) -> Odd:
    """`change` gets the message with its reasoning taken out, the reasoning, and the content."""

    def put(answer: dict[str, Any]) -> None:
        said = answer["choices"][0]["message"]
        change(said, said.pop("reasoning_content"), said["content"])

    return says(name, "answered", put, exact=True, **more)


def ends(word: Any, then: Then, code: int = 0) -> Odd:
    """This `finish_reason`; `code` where nobody knows it, which ends a run of which it is a large part."""
    exact, same = then == "answered", then != "kept"

    def end(answer: dict[str, Any]) -> None:
        answer["choices"][0]["finish_reason"] = word

    return says(f"finish_{word!r}", then, end, same=same, exact=exact, code=code)


def usage(name: str, change: Callable[[dict[str, Any]], Any], exact: bool = False, **more: Any) -> Odd:
    """`change` gets what the usage honestly is; what it returns is said instead."""
    return says(
        f"usage_{name}", "answered", lambda a: a.update(usage=change(a["usage"])), exact=exact, **more
    )


def without(said: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in said.items() if key not in keys}


def drop(said: dict[str, Any], key: str) -> None:
    del said[key]


def error(code: Any, message: str = "no") -> dict[str, Any]:
    return {"error": {"message": message, "code": code}}


def nested(depth: int) -> Any:
    inner: Any = 1
    for _ in range(depth):
        inner = [inner]
    return inner


ERRORS_IN_200 = [
    instead("200_error_429", "again", error(429)),
    instead("200_error_rate_limit_exceeded", "again", error("rate_limit_exceeded")),
    instead("200_error_500", "again", error(500)),
    instead("200_error_502_as_text", "again", error("502", "Upstream error")),
    instead("200_error_text", "again", {"error": "overloaded"}),
    instead("200_error_without_code", "again", {"error": {"message": "no"}}),
    instead("200_error_and_no_choices", "again", {"id": "x", "choices": [], **error(None)}),
    instead("200_error_400", "skipped", error(400)),
    instead("200_error_403", "skipped", error(403, "flagged")),
    instead("200_error_401", "stops", error(401), code=3),
    instead("200_error_402", "stops", error(402), code=4),
    instead("200_error_insufficient_quota", "stops", error("insufficient_quota"), code=4),
    instead("200_error_invalid_api_key", "stops", error("invalid_api_key"), code=3),
    instead("200_success_false", "again", {"success": False, "errorMessage": "busy"}),
    instead("200_code_and_data_null", "again", {"code": 50505, "message": "busy", "data": None}),
    instead("200_base_resp", "again", {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}),
    instead("200_detail", "again", {"detail": "busy"}),
    says("200_error_null_beside_the_answer", "answered", lambda a: a.update(error=None), exact=True),
    says("200_error_empty_beside_the_answer", "answered", lambda a: a.update(error={}), exact=True),
]
STOPS = ("STOP", "Stop", "eos", "eos_token", "end", "end_turn", "stop_sequence", "complete", "COMPLETE")
LENGTHS = ("length", "max_tokens", "MAX_TOKENS", "model_length", "max_output_tokens", "max_length")
FILTERS = ("content_filter", "SAFETY", "refusal", "RECITATION", "sensitive", "PROHIBITED_CONTENT")
FINISHES = [
    *(ends(word, "answered") for word in (*STOPS, "completed", "finished", "done", "normal")),
    *(ends(word, "kept") for word in (*LENGTHS, *FILTERS)),
    *(ends(word, "kept", 10) for word in ("zonk", "tool_calls", "function_call", "[/x]", "a" * 5000)),
    *(ends(word, "again") for word in ("network_error", "insufficient_system_resource", "error", "abort")),
    *(ends(word, "again") for word in (None, "")),
    says("finish_absent", "again", lambda a: drop(a["choices"][0], "finish_reason")),
    says(
        "finish_native", "answered", lambda a: a["choices"][0].update(native_finish_reason="STOP"), exact=True
    ),
]
SHAPES = [
    instead("choices_with_null", "again", {"id": "x", "choices": [None]}),
    instead("choices_empty", "again", {"id": "x", "choices": []}),
    instead("choices_null", "again", {"id": "x", "choices": None}),
    instead("choices_object", "again", {"id": "x", "choices": {"0": {}}}),
    instead("choices_text", "again", {"id": "x", "choices": "stop"}),
    instead("choices_of_nothing", "again", {"id": "x", "choices": [{}]}),
    instead("choices_absent", "again", {"id": "x"}),
    instead("choices_of_text", "again", {"id": "x", "choices": ["42"]}),
    instead("data_null", "again", {"data": None}),
    instead("json_list", "again", [1, 2]),
    instead("json_text", "again", "busy"),
    instead("json_number", "again", 3),
    instead("json_true", "again", True),
    instead("json_empty_object", "again", {}),
    says("message_null", "again", lambda a: a["choices"][0].update(message=None), same=True),
    says("message_text", "again", lambda a: a["choices"][0].update(message="42")),
    says("content_null", "again", lambda a: a["choices"][0].update(message={"content": None})),
    says("content_empty", "again", lambda a: a["choices"][0]["message"].update(content="")),
    says("content_absent", "again", lambda a: drop(a["choices"][0]["message"], "content")),
    says("content_number", "again", lambda a: a["choices"][0]["message"].update(content=42)),
    says("content_empty_list", "again", lambda a: a["choices"][0]["message"].update(content=[])),
    says("nested_600", "answered", lambda a: a.update(odd=nested(600)), exact=True),
    says(
        "nested_600_in_the_choice", "answered", lambda a: a["choices"][0].update(odd=nested(600)), exact=True
    ),
    says(
        "nested_600_in_the_message", "answered", lambda a: a["choices"][0]["message"].update(odd=nested(600))
    ),
    says(
        "nan", "answered", lambda a: a["choices"][0].update(logprobs=[float("nan"), float("inf")]), exact=True
    ),
    says("huge_integer", "answered", lambda a: a.update(created=10**400), exact=True),
    says("huge_integer_of_5000_digits", "answered", lambda a: a.update(created=int("9" * 4000)), exact=True),
    says("id_number", "answered", lambda a: a.update(id=7), exact=True, readable=False),
    says("id_absent", "answered", lambda a: drop(a, "id"), exact=True, readable=False),
    says("model_null", "answered", lambda a: a.update(model=None), exact=True, same=False),
    says("model_absent", "answered", lambda a: drop(a, "model"), exact=True, same=False),
    says("model_markup", "answered", lambda a: a.update(model="odd [/x] [bold]"), exact=True, same=False),
    says("created_text", "answered", lambda a: a.update(created="now"), exact=True),
    says("index_absent", "answered", lambda a: drop(a["choices"][0], "index"), exact=True),
    says("index_null", "answered", lambda a: a["choices"][0].update(index=None), exact=True),
    says("index_text", "answered", lambda a: a["choices"][0].update(index="0"), exact=True),
    says("index_7", "answered", lambda a: a["choices"][0].update(index=7), exact=True),
    says("role_absent", "answered", lambda a: drop(a["choices"][0]["message"], "role"), exact=True),
    says("more_fields", "answered", lambda a: a["choices"][0]["message"].update(annotations=[], audio=None)),
    says("2_mb_more", "answered", lambda a: a.update(odd="x" * 2_000_000), exact=True),
]
REASONING = [
    message("reasoning", lambda m, r, c: m.update(reasoning=r)),
    message("reasoning_twice", lambda m, r, c: m.update(reasoning=r, reasoning_content=r)),
    message("thinking", lambda m, r, c: m.update(thinking=r)),
    message(
        "reasoning_details",
        lambda m, r, c: m.update(reasoning_details=[{"type": "reasoning.text", "text": r}]),
    ),
    message("reasoning_null_first", lambda m, r, c: m.update(reasoning_content=None, reasoning=r)),
    message("think_tags", lambda m, r, c: m.update(content=f"<think>{r}</think>{c}")),
    message("think_closed_only", lambda m, r, c: m.update(content=f"{r}\n</think>\n\n{c}")),
    message("think_stray_close", lambda m, r, c: m.update(reasoning_content=r, content=f"</think>\n{c}")),
    message("thought_tags", lambda m, r, c: m.update(content=f"<thought>{r}</thought>{c}")),
    message("THINK_tags", lambda m, r, c: m.update(content=f"[THINK]{r}[/THINK]{c}")),
    message("mm_think_tags", lambda m, r, c: m.update(content=f"<mm:think>{r}</mm:think>{c}")),
    message("kimi_tags", lambda m, r, c: m.update(content=f"◁think▷{r}◁/think▷{c}")),
    message(
        "gpt_oss_channels",
        lambda m, r, c: m.update(
            content=f"<|channel|>analysis<|message|>{r}<|end|><|start|>assistant<|channel|>final<|message|>{c}"
        ),
    ),
    message(
        "content_parts", lambda m, r, c: m.update(reasoning_content=r, content=[{"type": "text", "text": c}])
    ),
    message(
        "content_parts_thinking",
        lambda m, r, c: m.update(
            content=[
                {"type": "thinking", "thinking": [{"type": "text", "text": r}]},
                {"type": "text", "text": c},
            ]
        ),
    ),
    message(
        "content_parts_thinking_is_text",
        lambda m, r, c: m.update(content=[{"type": "thinking", "thinking": r}, {"type": "text", "text": c}]),
    ),
]
USAGE = [
    says("usage_absent", "answered", lambda a: drop(a, "usage")),
    usage("null", lambda u: None),
    usage("empty", lambda u: {}),
    usage("text", lambda u: "many"),
    usage("list", lambda u: [u]),
    usage("zero", lambda u: {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
    usage("zero_output", lambda u: u | {"completion_tokens": 0}),
    usage("negative", lambda u: u | {"completion_tokens": -5}),
    usage(
        "as_text",
        lambda u: (
            u | {"prompt_tokens": str(u["prompt_tokens"]), "completion_tokens": str(u["completion_tokens"])}
        ),
    ),
    usage("nan", lambda u: u | {"completion_tokens": float("nan")}),
    usage("infinite", lambda u: u | {"completion_tokens": float("inf")}),
    usage("null_output", lambda u: u | {"completion_tokens": None}),
    usage("true", lambda u: u | {"completion_tokens": True}),
    usage("fraction", lambda u: u | {"completion_tokens": float(u["completion_tokens"])}, exact=True),
    usage("one", lambda u: u | {"completion_tokens": 1, "completion_tokens_details": None}),
    usage("huge", lambda u: u | {"completion_tokens": 2**60}),
    usage(
        "reasoning_outside",
        lambda u: u | {"completion_tokens": u["completion_tokens"] - reasoned(u), "total_tokens": None},
    ),
    usage(
        "reasoning_outside_and_unsaid",
        lambda u: {
            "prompt_tokens": u["prompt_tokens"],
            "completion_tokens": u["completion_tokens"] - reasoned(u),
        },
    ),
    usage("total_only", lambda u: {"total_tokens": u["total_tokens"]}),
    usage("total_more", lambda u: u | {"completion_tokens": 2, "completion_tokens_details": {}}),
    usage("names_of_anthropic", lambda u: {"input_tokens": 12, "output_tokens": u["completion_tokens"]}),
    usage("details_null", lambda u: u | {"completion_tokens_details": None}, exact=True),
    usage("details_text", lambda u: u | {"completion_tokens_details": "some"}, exact=True),
    usage("cached", lambda u: u | {"prompt_tokens_details": {"cached_tokens": 4}}, exact=True),
    usage("cached_more_than_all", lambda u: u | {"prompt_tokens_details": {"cached_tokens": 4000}}),
    usage("hit_of_deepseek", lambda u: u | {"prompt_cache_hit_tokens": 3}, exact=True),
]


def reasoned(usage: Mapping[str, Any]) -> int:
    return int(usage["completion_tokens_details"]["reasoning_tokens"])


# Bodies and streams. -------------------------------------------------------------------------------------
def body(name: str, then: Then, change: Callable[[bytes], bytes], **more: Any) -> Odd:
    """The JSON of an answer that comes whole, changed as bytes."""

    def respond(asked: Asked, answer: dict[str, Any]) -> Sequence[Step]:
        return [http(200, change(dumps(answer)))]

    return Odd(name=name, then=then, respond=respond, only="whole", **more)


def stream(name: str, then: Then, change: Callable[[list[bytes]], Sequence[bytes]], **more: Any) -> Odd:
    """The events of a streamed answer, with their [DONE]."""

    def respond(asked: Asked, answer: dict[str, Any]) -> Sequence[Step]:
        return chunked(change([*events(answer), DONE]))

    return Odd(name=name, then=then, respond=respond, only="streamed", **more)


def head_of(said: bytes) -> dict[str, Any]:
    """The JSON of an event."""
    found: dict[str, Any] = json.loads(said.removeprefix(b"data: "))
    return found


def with_usage_everywhere(said: list[bytes]) -> list[bytes]:
    """A count that grows with every chunk, as some servers send it."""
    *pieces, last, done = said
    total = head_of(last)["usage"]
    grown = [
        total | {"completion_tokens": total["completion_tokens"] * n // len(pieces), "total_tokens": None}
        for n in range(1, len(pieces) + 1)
    ]
    return [*(event(head_of(p) | {"usage": u}) for p, u in zip(pieces, grown, strict=True)), last, done]


def usage_with_the_finish(said: list[bytes]) -> list[bytes]:
    *pieces, end, last, done = said
    return [*pieces, event(head_of(end) | {"usage": head_of(last)["usage"]}), done]


def cut(place: float) -> Callable[[list[bytes]], Sequence[bytes]]:
    """Only the first bytes of all, and a proper end of the HTTP body."""

    def shorten(said: list[bytes]) -> Sequence[bytes]:
        whole = b"".join(said)
        return [whole[: int(len(whole) * place)]]

    return shorten


def only_events(first: int, last: int | None = None) -> Callable[[list[bytes]], Sequence[bytes]]:
    return lambda said: said[first:last]


def one_by_one(size: int) -> Callable[[list[bytes]], Sequence[bytes]]:
    return lambda said: [b"".join(said)[at : at + size] for at in range(0, len(b"".join(said)), size)]


BODIES = [
    body("bom", "answered", lambda t: b"\xef\xbb\xbf" + t, exact=True),
    body("text_before", "answered", lambda t: b"ok\n" + t, exact=True),
    body("text_after", "answered", lambda t: t + b"\n-- served by a proxy", exact=True),
    body("comma_after", "answered", lambda t: t + b",", exact=True),
    body("nul_after", "answered", lambda t: t + b"\0\0\0", exact=True),
    body("blank_lines_around", "answered", lambda t: b"\n \r\n" * 50 + t + b"\n" * 9, exact=True),
    body("comments_before", "answered", lambda t: b": OPENROUTER PROCESSING\n\n" * 3 + t, exact=True),
    body("twice", "answered", lambda t: t + b"\n" + t, exact=True),
    body("prefix_of_google", "answered", lambda t: b")]}'\n" + t, exact=True),
    body("in_a_fence", "answered", lambda t: b"```json\n" + t + b"\n```", exact=True),
    body("lone_surrogate", "answered", lambda t: t.replace(b"of", b"\\ud83d of"), exact=True, same=False),
    body("escaped_unicode", "answered", lambda t: json.dumps(json.loads(t)).encode(), exact=True),
    body("not_utf8", "answered", lambda t: t.replace(b"of", b"\xff of"), same=False),
    body("nul_in_text", "answered", lambda t: t.replace(b"of", b"\\u0000of"), exact=True, same=False),
    body("raw_newline_in_text", "answered", lambda t: t.replace(b"of", b"\nof"), same=False),
    body("utf16", "answered", lambda t: t.decode().encode("utf-16"), exact=True),
    body("nested_5000", "answered", lambda t: t[:-1] + b', "odd": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
    body("cut_json", "again", lambda t: t[:-30]),
    body("cut_json_early", "again", lambda t: t[:60]),
    body("single_quotes", "again", lambda t: t.replace(b'"', b"'")),
    body("null", "again", lambda t: b"null", readable=False, billed=False),
    body("empty", "again", lambda t: b"", readable=False),
    body("blank_lines_only", "again", lambda t: b"\n" * 200, readable=False),
    body("html", "again", lambda t: HTML, readable=False, billed=False),
    body("events_though_whole", "answered", lambda t: b"".join([*events(json.loads(t)), DONE]), exact=True),
]
STREAMS = [
    *(stream(f"cut_at_{p:.0%}", "again", cut(p), readable=p > 0.2) for p in (0.0, 0.1, 0.3, 0.5, 0.7, 0.8)),
    stream("cut_before_finish", "again", lambda e: e[:-3]),
    stream("cut_before_usage", "answered", lambda e: e[:-2]),
    stream("no_done", "answered", lambda e: e[:-1], exact=True),
    stream("no_blank_line_at_the_end", "answered", lambda e: [*e[:-1], DONE.rstrip()], exact=True),
    stream("last_event_unfinished", "answered", lambda e: [*e[:-2], e[-2].rstrip()]),
    stream("done_early", "answered", lambda e: [e[0], e[-1], *e[1:]]),
    stream("done_twice", "answered", lambda e: [*e, DONE], exact=True),
    stream("crlf", "answered", lambda e: [x.replace(b"\n", b"\r\n") for x in e], exact=True),
    stream("cr", "answered", lambda e: [x.replace(b"\n", b"\r") for x in e], exact=True),
    stream("comments", "answered", lambda e: [y for x in e for y in (b": wait\n\n", x)], exact=True),
    stream("event_lines", "answered", lambda e: [b"event: message\n" + x for x in e], exact=True),
    stream("id_and_retry_lines", "answered", lambda e: [b"id: 7\nretry: 100\n" + x for x in e], exact=True),
    stream("no_space", "answered", lambda e: [x.replace(b"data: ", b"data:") for x in e], exact=True),
    stream("empty_events", "answered", lambda e: [y for x in e for y in (b"data:\n\n", x)]),
    stream(
        "data_in_two_lines",
        "answered",
        lambda e: [x.replace(b', "', b',\ndata: "', 1) for x in e],
        exact=True,
    ),
    stream("bom_first", "answered", lambda e: [b"\xef\xbb\xbf" + e[0], *e[1:]]),
    stream("junk_lines", "answered", lambda e: [y for x in e for y in (b"junk\n", x)], exact=True),
    stream("all_at_once", "answered", lambda e: [b"".join(e)], exact=True),
    stream("byte_by_byte", "answered", one_by_one(1), exact=True),
    stream("seven_bytes", "answered", one_by_one(7), exact=True),
    stream("usage_everywhere", "answered", with_usage_everywhere, exact=True),
    stream("usage_with_the_finish", "answered", usage_with_the_finish, exact=True),
    stream("usage_twice", "answered", lambda e: [*e[:-1], e[-2], e[-1]], exact=True),
    stream("usage_first", "answered", lambda e: [e[-2], *e[:-2], e[-1]], exact=True),
    stream(
        "usage_null_everywhere",
        "answered",
        lambda e: [*(event(head_of(x) | {"usage": None}) for x in e[:-2]), *e[-2:]],
        exact=True,
    ),
    stream(
        "role_everywhere", "answered", lambda e: [with_delta(x, {"role": "assistant"}) for x in e], exact=True
    ),
    stream(
        "finish_everywhere_empty",
        "answered",
        lambda e: [x.replace(b'_reason": null', b'_reason": ""') for x in e],
    ),
    stream("error_first", "again", lambda e: [event(error(500))], billed=False, readable=False),
    stream("error_in_the_middle", "again", lambda e: [*e[:4], event(error(500)), DONE]),
    stream("error_event", "again", lambda e: [*e[:4], b"event: error\n" + event({"message": "no"})]),
    stream("error_429_in_the_middle", "again", lambda e: [*e[:4], event(error(429))]),
    stream("broken_json_in_the_middle", "again", lambda e: [*e[:4], b'data: {"id": \n\n', *e[4:]]),
    stream("null_in_the_middle", "answered", lambda e: [*e[:4], b"data: null\n\n", *e[4:]], exact=True),
    stream("list_in_the_middle", "answered", lambda e: [*e[:4], b"data: []\n\n", *e[4:]], exact=True),
    stream(
        "choices_null_in_the_middle",
        "answered",
        lambda e: [*e[:4], event({"choices": None}), *e[4:]],
        exact=True,
    ),
    stream(
        "choice_null_in_the_middle",
        "answered",
        lambda e: [*e[:4], event({"choices": [None]}), *e[4:]],
        exact=True,
    ),
    stream(
        "delta_null",
        "answered",
        lambda e: [*e[:4], event({"choices": [{"index": 0, "delta": None}]}), *e[4:]],
    ),
    stream(
        "delta_text", "answered", lambda e: [*e[:4], event({"choices": [{"index": 0, "delta": "x"}]}), *e[4:]]
    ),
    stream("delta_deep", "answered", lambda e: [*e[:4], event({"choices": [], "odd": nested(600)}), *e[4:]]),
    stream("only_done", "again", only_events(-1), billed=False, readable=False),
    stream("nothing", "again", only_events(0, 0), billed=False, readable=False),
    stream("json_though_streamed", "answered", lambda e: [dumps(joined(e))], exact=True),
]


def with_delta(said: bytes, more: Mapping[str, Any]) -> bytes:
    """An event with this in its delta, too."""
    if said == DONE or not head_of(said)["choices"]:
        return said
    whole = head_of(said)
    whole["choices"][0]["delta"] |= more
    return event(whole)


def joined(said: list[bytes]) -> dict[str, Any]:
    """The answer that these events make up."""
    heads = [head_of(x) for x in said[:-1]]
    text: dict[str, str] = {}
    for piece in heads[:-1]:
        for field, value in piece["choices"][0]["delta"].items():
            text[field] = text.get(field, "") + value
    choice = {"index": 0, "message": text, "finish_reason": "stop"}
    return without(heads[0], "choices", "object") | {"choices": [choice], "usage": heads[-1]["usage"]}


# Several choices though one was asked for: all are billed. -------------------------------------------------
def several(name: str, order: Callable[[list[Any]], list[Any]], **more: Any) -> Odd:
    other = {"index": 1, "finish_reason": "stop", "message": {"content": "the answer of another"}}

    def add(answer: dict[str, Any]) -> None:
        answer["choices"] = order([answer["choices"][0], other])
        answer["usage"]["completion_tokens"] += 6

    return says(f"choices_{name}", "answered", add, exact=True, also=6, **more)


SEVERAL = [
    several("two", lambda c: c),
    several("two_the_last_first", lambda c: c[::-1]),
    several("two_and_a_null", lambda c: [*c, None], only="whole"),
]


# HTTP itself. --------------------------------------------------------------------------------------------
def wire(name: str, then: Then, respond: Callable[[list[bytes]], Sequence[Step]], **more: Any) -> Odd:
    """`respond` gets what an honest server would send: the head and the body, at least."""

    def steps(asked: Asked, answer: dict[str, Any]) -> Sequence[Step]:
        sent = b"".join(framed(answer, asked))
        head, blank, rest = sent.partition(b"\r\n\r\n")
        return respond([head + blank, rest])

    return Odd(name=name, then=then, respond=steps, **more)


def lost(name: str, *steps: Step, **more: Any) -> Odd:
    """These bytes and nothing of the answer."""
    free = {"billed": False, "readable": False} | more
    return wire(name, "again", lambda w: steps, **free)


def raw(asked: Asked, answer: dict[str, Any]) -> bytes:
    """The body without any frame."""
    return b"".join([*events(answer), DONE]) if asked.streamed else dumps(answer)


def boxed(name: str, then: Then, pack: Callable[[bytes], bytes], head: Mapping[str, str], **more: Any) -> Odd:
    """The body, packed, with more headers."""
    return Odd(name=name, then=then, respond=lambda q, a: [http(200, pack(raw(q, a)), head)], **more)


def status(name: str, line: bytes, **more: Any) -> Odd:
    """Another status line."""
    return wire(
        name,
        "answered",
        lambda w: [w[0].replace(b"HTTP/1.1 200 OK", line).replace(b"HTTP/1.1 200 -", line), w[1]],
        **more,
    )


def closed(body: bytes) -> bytes:
    return b"HTTP/1.0 200 OK\r\n\r\n" + body


REDIRECT = {"location": "/v1/chat/completions"}
HTTP = [
    boxed("gzip", "answered", gzip.compress, {"content-encoding": "gzip"}, exact=True),
    boxed("deflate", "answered", zlib.compress, {"content-encoding": "deflate"}, exact=True),
    boxed(
        "gzip_broken", "again", lambda b: gzip.compress(b)[:99], {"content-encoding": "gzip"}, readable=False
    ),
    boxed("gzip_that_is_none", "again", bytes, {"content-encoding": "gzip"}, readable=False),
    boxed("encoding_unknown", "answered", bytes, {"content-encoding": "zonk"}, exact=True),
    boxed("type_text", "answered", bytes, {"content-type": "text/plain"}, exact=True),
    boxed("type_html", "answered", bytes, {"content-type": "text/html"}, exact=True),
    boxed("type_absent", "answered", bytes, {"content-type": ""}, exact=True),
    boxed("type_broken", "answered", bytes, {"content-type": ";;=/"}, exact=True),
    boxed(
        "type_charset_unknown",
        "answered",
        bytes,
        {"content-type": "application/json; charset=zonk"},
        exact=True,
    ),
    boxed(
        "type_charset_latin1",
        "answered",
        bytes,
        {"content-type": "application/json; charset=latin-1"},
        same=False,
    ),
    boxed("header_of_30_kb", "answered", bytes, {"x-odd": "x" * 30_000}, exact=True),
    boxed("connection_close", "answered", bytes, {"connection": "close"}, exact=True),
    Odd(
        name="length_too_small",
        then="again",
        respond=lambda q, a: [http(200, raw(q, a), {"content-length": "40", "connection": "close"}), CLOSE],
        readable=False,
    ),
    Odd(
        name="length_too_large",
        then="answered",
        respond=lambda q, a: [http(200, raw(q, a), {"content-length": "9999999"}), CLOSE],
    ),
    Odd(name="http_1_0", then="answered", respond=lambda q, a: [closed(raw(q, a)), CLOSE], exact=True),
    wire("keep_alive_closed", "answered", lambda w: [*w, CLOSE], exact=True),
    wire(
        "bytes_after_the_answer", "answered", lambda w: [*w, b"HTTP/1.1 408 Bye\r\n\r\n", CLOSE], exact=True
    ),
    wire("100_continue_first", "answered", lambda w: [b"HTTP/1.1 100 Continue\r\n\r\n", *w], exact=True),
    wire(
        "102_and_103_first",
        "answered",
        lambda w: [b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", *w],
        exact=True,
    ),
    wire("drip", "answered", lambda w: [w[0], *drops(w[1], 40)], exact=True),
    wire("header_in_two", "answered", lambda w: [w[0][:20], 0.01, w[0][20:], w[1]], exact=True),
    status("no_reason", b"HTTP/1.1 200", exact=True),
    status("odd_reason", b"HTTP/1.1 200 \xff\xfe [/x]", exact=True),
    status("201", b"HTTP/1.1 201 Created", exact=True),
    lost("204", b"HTTP/1.1 204 No Content\r\n\r\n"),
    refusal("304", 304, "skipped", b""),
    lost("307_here", http(307, b"", REDIRECT)),
    lost("308_here", http(308, b"", REDIRECT)),
    lost("307_to_nobody", http(307, b"", {"location": "http://127.0.0.1:9/v1"})),
    refusal("307_without_location", 307, "skipped", b""),
    lost("307_nonsense", http(307, b"", {"location": "http://[::1:bad"})),
    refusal("302_here", 302, "skipped", b"", head=lambda: REDIRECT),
    lost("reset_before", RESET),
    lost("close_before", CLOSE),
    lost("reset_after_the_head", b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n", RESET),
    wire("reset_in_the_body", "again", lambda w: [w[0], w[1][: len(w[1]) // 2], 0.05, RESET], readable=False),
    wire("close_in_the_body", "again", lambda w: [w[0], w[1][: len(w[1]) // 2], CLOSE], readable=False),
    wire("hang_before", "again", lambda w: [HANG], readable=False, silent=True),
    wire("hang_after_the_head", "again", lambda w: [w[0], HANG], readable=False, silent=True),
    wire("hang_in_the_body", "again", lambda w: [w[0], w[1][:300], HANG], readable=False, silent=True),
    wire(
        "blank_lines_for_ever",
        "again",
        lambda w: [b"HTTP/1.1 200 OK\r\n\r\n", *(b"\n", 0.05) * 4000],
        readable=False,
        silent=True,
    ),
    lost("garbage", b"\x15\x03\x01\x00\x02\x02\x16" * 9, CLOSE),
    lost("ssh", b"SSH-2.0-OpenSSH_9.6\r\n", CLOSE),
    lost("status_99999", b"HTTP/1.1 99999 No\r\n\r\n", CLOSE),
    lost("status_text", b"HTTP/1.1 OK\r\n\r\n", CLOSE),
    lost("header_broken", b"HTTP/1.1 200 OK\r\n: x\r\n\x00\r\n\r\n", CLOSE),
    lost("header_of_1_mb", b"HTTP/1.1 200 OK\r\nx-odd: " + b"x" * (1 << 20), CLOSE),
    lost("chunks_broken", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n", CLOSE),
    Odd(
        name="chunks_without_end",
        then="again",
        respond=lambda q, a: [*chunked([raw(q, a)[:300]], b""), CLOSE],
        readable=False,
    ),
    Odd(
        name="chunks_of_json",
        then="answered",
        respond=lambda q, a: chunked([raw(q, a)[:50], raw(q, a)[50:]], kind="application/json"),
        exact=True,
    ),
]


def drops(text: bytes, count: int) -> list[Step]:
    """This many pieces, with a pause between them."""
    size = -(-len(text) // count)
    return [step for at in range(0, len(text), size) for step in (text[at : at + size], 0.002)]


FAULTS: list[Odd] = [
    *(*REFUSALS, *ERRORS_IN_200, *FINISHES, *SHAPES, *REASONING, *USAGE),
    *(*BODIES, *STREAMS, *SEVERAL, *HTTP),
]
NAMED = {fault.name: fault for fault in FAULTS}
