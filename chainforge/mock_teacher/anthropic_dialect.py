"""Anthropic's messages: thinking and text are blocks.

The answer, and in a stream the message of `message_start`, has a field `"synthetic": true`, by which a client
can tell that it is a mock's: there is no `system_fingerprint` here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainforge.mock_teacher.dialect import event, kind_of
from chainforge.mock_teacher.draft import Draft, pieces
from chainforge.providers.calls import Usage

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}
SIGNATURE = "mock"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnthropicDialect:
    """POST /v1/messages. A finish that Anthropic has no word for is written as it is."""

    name: str = "anthropic"

    def body(self, draft: Draft) -> Mapping[str, Any]:
        """The whole answer."""
        blocks: list[dict[str, str]] = []
        if draft.choices and draft.reasoning:
            blocks.append({"type": "thinking", "thinking": draft.reasoning, "signature": SIGNATURE})
        if draft.choices and draft.content:
            blocks.append({"type": "text", "text": draft.content})
        told = {"usage": self._usage(draft.usage)} if draft.usage_told else {}
        stop_reason = self._stop_reason(draft) if draft.choices else None
        return self._head(draft) | {"content": blocks, "stop_reason": stop_reason} | told

    def events(self, draft: Draft, *, with_usage: bool) -> Iterator[bytes]:
        """The answer as server-sent events, a token each. Usage is always told here."""
        usage = self._usage(draft.usage)
        opened = {"usage": usage | {"output_tokens": 1}} if draft.usage_told else {}
        yield _typed(
            "message_start", message=self._head(draft) | {"content": [], "stop_reason": None} | opened
        )
        blocks = (
            ("thinking", draft.reasoning, {"thinking": "", "signature": ""}),
            ("text", draft.content, {"text": ""}),
        )
        written = [block for block in blocks if draft.choices and block[1]]
        for index, (kind, text, empty) in enumerate(written):
            yield _typed("content_block_start", index=index, content_block={"type": kind, **empty})
            for piece in pieces(text or ""):
                yield _block_delta(index, f"{kind}_delta", **{kind: piece})
            if kind == "thinking":
                yield _block_delta(index, "signature_delta", signature=SIGNATURE)
            yield _typed("content_block_stop", index=index)
        stop_reason = self._stop_reason(draft) if draft.choices else None
        told = {"usage": usage} if draft.usage_told else {}
        ending = {"stop_reason": stop_reason, "stop_sequence": None}
        yield from [_typed("message_delta", delta=ending, **told)] * max(1, draft.usage_told)
        yield _typed("message_stop")

    def error(self, status: int, message: str) -> Mapping[str, Any]:
        """The body of a refusal."""
        return {"type": "error", "error": {"type": kind_of(status), "message": message}}

    def error_event(self, message: str) -> bytes:
        """A refusal in the middle of a stream."""
        return event(self.error(503, message), "error")

    def models(self, names: Sequence[str]) -> Mapping[str, Any]:
        """The list of models."""
        rows = [
            {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
            for name in names
        ]
        return {"data": rows, "has_more": False, "first_id": names[0], "last_id": names[-1]}

    def _stop_reason(self, draft: Draft) -> str | None:
        return None if draft.finish is None else STOP_REASONS.get(draft.finish, draft.finish)

    def _usage(self, usage: Usage) -> dict[str, int]:
        """What the cache had is not among the input tokens."""
        return {
            "input_tokens": usage.miss,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": usage.hit,
            "output_tokens": usage.output,
        }

    def _head(self, draft: Draft) -> dict[str, Any]:
        note = {"note": draft.note} if draft.note is not None else {}
        head = {"id": draft.id, "type": "message", "role": "assistant", "model": draft.model}
        return head | {"stop_sequence": None, "synthetic": True} | note


def _typed(kind: str, **data: Any) -> bytes:
    return event({"type": kind, **data}, kind)


def _block_delta(index: int, kind: str, **delta: str) -> bytes:
    return _typed("content_block_delta", index=index, delta={"type": kind, **delta})
