"""How providers word an answer, a stream of it, and an error.

A client can tell that an answer is a mock's: chat completions have the `system_fingerprint`
"chainforge-mock", and Anthropic's messages, which have no such field, `"synthetic": true`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chainforge.mock_teacher.draft import Draft, split_tokens
from chainforge.mock_teacher.response import make_event

CUT_OFF = ("length", "insufficient_system_resource")
SIGNATURE = "mock"
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}  # Anthropic's words
ERRORS = {
    401: "authentication",
    402: "billing",
    403: "permission",
    404: "not_found",
    408: "timeout",
    409: "conflict",
    429: "rate_limit",
    500: "api",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatDialect:
    """OpenAI's chat completions. Reasoning is in `field`, beside the content, and with `details` in a list of
    parts as well. Without a `field` it is in the content, between tags."""

    name: str
    field: str | None = None
    details: bool = False
    opening: str = ""
    closing: str = ""
    hits_and_misses: bool = False  # usage in DeepSeek's words

    def write_body(self, draft: Draft) -> Mapping[str, Any]:
        """The whole answer."""
        reasoning, content = self._split_texts(draft)
        message = {"role": "assistant", "content": content, **self._write_reasoning(reasoning)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": draft.finish}
        choices = [choice] if draft.choices else []
        head = self._write_head(draft, "chat.completion")
        return {**head, **draft.extra, "choices": choices, **self._write_usage(draft)}

    def write_events(self, draft: Draft, *, with_usage: bool) -> Iterator[bytes]:
        """The answer as server-sent events, a token each."""
        head = self._write_head(draft, "chat.completion.chunk")

        def choose(delta: Mapping[str, Any], finish: str | None = None, **extra: str) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            return make_event({**head, **extra, "choices": [choice]})

        if draft.choices:
            reasoning, content = self._split_texts(draft)
            yield choose({"role": "assistant", "content": ""}, **draft.extra)
            for token in split_tokens(reasoning):
                yield choose({"content": None, **self._write_reasoning(token)})
            for token in split_tokens(content):
                yield choose({"content": token})
            if draft.finish is not None:
                yield choose({}, draft.finish)
        if with_usage:
            yield from [make_event({**head, "choices": [], **self._write_usage(draft)})] * draft.usage_copies
        yield b"data: [DONE]\n\n"

    def write_error(self, status: int, message: str) -> Mapping[str, Any]:
        """The body of a refusal, as DeepSeek and OpenAI have it."""
        kind = _name_error(status)
        return {"error": {"message": message, "type": kind, "param": None, "code": kind}}

    def write_error_event(self, message: str) -> bytes:
        """A refusal in the middle of a stream."""
        return make_event(self.write_error(500, message))

    def _split_texts(self, draft: Draft) -> tuple[str | None, str | None]:
        """Reasoning and content as they are written; no closing tag where the thought was cut off."""
        if self.field or not draft.reasoning:
            return draft.reasoning or None, draft.content
        unfinished = draft.finish in CUT_OFF and not draft.content
        rest = "" if unfinished else self.closing + (draft.content or "")
        return None, self.opening + draft.reasoning + rest

    def _write_reasoning(self, text: str | None) -> dict[str, Any]:
        if not self.field:
            return {}
        part = {"type": "reasoning.text", "text": text, "format": "unknown", "index": 0}
        return {self.field: text} | ({"reasoning_details": [part] if text else []} if self.details else {})

    def _write_usage(self, draft: Draft) -> dict[str, Any]:
        if not draft.usage_copies:
            return {}
        usage, read = draft.usage, draft.usage.hit + draft.usage.miss
        fields: dict[str, Any] = {
            "prompt_tokens": read,
            "completion_tokens": usage.output,
            "total_tokens": read + usage.output,
            "prompt_tokens_details": {"cached_tokens": usage.hit},
        }
        if self.hits_and_misses:
            fields |= {"prompt_cache_hit_tokens": usage.hit, "prompt_cache_miss_tokens": usage.miss}
            fields["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
        return {"usage": fields}

    def _write_head(self, draft: Draft, kind: str) -> dict[str, Any]:
        """`created` is 0: the same request gets the same bytes at any time."""
        head = {"id": draft.id, "object": kind, "created": 0, "model": draft.model}
        return head | {"system_fingerprint": "chainforge-mock"}


class AnthropicDialect:
    """Anthropic's messages: thinking and text are blocks. A finish that it has no word for is written as it
    is, and usage is always in a stream."""

    name = "anthropic"

    def write_body(self, draft: Draft) -> Mapping[str, Any]:
        """The whole answer."""
        blocks = [
            {"type": kind, kind: text} | ({"signature": SIGNATURE} if kind == "thinking" else {})
            for kind, text in self._list_blocks(draft)
        ]
        ending = {"content": blocks, "stop_reason": self._name_stop(draft)}
        return self._write_head(draft) | ending | self._write_usage(draft, draft.usage.output)

    def write_events(self, draft: Draft, *, with_usage: bool) -> Iterator[bytes]:
        """The answer as server-sent events, a token each."""
        message = self._write_head(draft) | {"content": [], "stop_reason": None} | self._write_usage(draft, 1)
        yield _make_typed("message_start", message=message)
        for index, (kind, text) in enumerate(self._list_blocks(draft)):
            empty = {"thinking": "", "signature": ""} if kind == "thinking" else {"text": ""}
            deltas = [{"type": f"{kind}_delta", kind: token} for token in split_tokens(text)]
            if kind == "thinking":
                deltas.append({"type": "signature_delta", "signature": SIGNATURE})
            yield _make_typed("content_block_start", index=index, content_block={"type": kind, **empty})
            for delta in deltas:
                yield _make_typed("content_block_delta", index=index, delta=delta)
            yield _make_typed("content_block_stop", index=index)
        ending = {"stop_reason": self._name_stop(draft), "stop_sequence": None}
        last = _make_typed("message_delta", delta=ending, **self._write_usage(draft, draft.usage.output))
        yield from [last] * max(1, draft.usage_copies)
        yield _make_typed("message_stop")

    def write_error(self, status: int, message: str) -> Mapping[str, Any]:
        """The body of a refusal."""
        return {"type": "error", "error": {"type": _name_error(status), "message": message}}

    def write_error_event(self, message: str) -> bytes:
        """A refusal in the middle of a stream."""
        return make_event(self.write_error(503, message), "error")

    def _list_blocks(self, draft: Draft) -> list[tuple[str, str]]:
        texts = (("thinking", draft.reasoning), ("text", draft.content))
        return [(kind, text) for kind, text in texts if draft.choices and text]

    def _name_stop(self, draft: Draft) -> str | None:
        if draft.finish is None or not draft.choices:
            return None
        return STOP_REASONS.get(draft.finish, draft.finish)

    def _write_usage(self, draft: Draft, output_tokens: int) -> dict[str, Any]:
        """What the cache had is not among the input tokens."""
        if not draft.usage_copies:
            return {}
        hit = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": draft.usage.hit}
        return {"usage": {"input_tokens": draft.usage.miss, **hit, "output_tokens": output_tokens}}

    def _write_head(self, draft: Draft) -> dict[str, Any]:
        head = {"id": draft.id, "type": "message", "role": "assistant", "model": draft.model}
        return {**head, "stop_sequence": None, "synthetic": True, **draft.extra}


def _name_error(status: int) -> str:
    return f"{ERRORS.get(status, 'invalid_request')}_error"


def _make_typed(kind: str, **data: Any) -> bytes:
    return make_event({"type": kind, **data}, kind)


Dialect = ChatDialect | AnthropicDialect
ANTHROPIC = AnthropicDialect()
CHAT = (
    ChatDialect(name="deepseek", field="reasoning_content", hits_and_misses=True),
    ChatDialect(name="openrouter", field="reasoning", details=True),
    ChatDialect(name="vllm", field="reasoning"),
    ChatDialect(name="sglang", field="reasoning_content"),
    ChatDialect(name="generic", field="reasoning_content"),
    ChatDialect(name="inline", opening="<think>\n", closing="\n</think>\n\n"),
    ChatDialect(name="inline-unopened", closing="\n</think>\n\n"),
    ChatDialect(name="kimi", opening="◁think▷", closing="◁/think▷"),
)
DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (*CHAT, ANTHROPIC)}
