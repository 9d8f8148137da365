"""Dialects of OpenAI's chat completions: where the reasoning is, and how usage is told.

`system_fingerprint` is "chainforge-mock", by which a client can tell that an answer is synthetic.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainforge.mock_teacher.dialect import event, kind_of
from chainforge.mock_teacher.draft import Draft, pieces
from chainforge.providers.calls import Usage

FINGERPRINT = "chainforge-mock"
CUT_OFF = ("length", "insufficient_system_resource")
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatDialect:
    """Reasoning is in `field`, beside the content; without one it is in the content, between tags."""

    name: str
    field: str | None = None
    details: bool = False  # a list of parts as well
    opening: str = ""
    closing: str = ""
    hits_and_misses: bool = False  # usage as DeepSeek tells it

    def body(self, draft: Draft) -> Mapping[str, Any]:
        """The whole answer."""
        reasoning, content = self._apart(draft)
        message = {"role": "assistant", "content": content}
        if self.field:
            message |= self._thought(reasoning)
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": draft.finish}
        told = {"usage": self._usage(draft.usage)} if draft.usage_told else {}
        return {
            **self._head(draft, "chat.completion"),
            **_note(draft),
            "choices": [choice] if draft.choices else [],
            **told,
        }

    def events(self, draft: Draft, *, with_usage: bool) -> Iterator[bytes]:
        """The answer as server-sent events, a token each."""
        head = self._head(draft, "chat.completion.chunk")
        if draft.choices:
            yield event(head | _note(draft) | _delta({"role": "assistant", "content": ""}))
            reasoning, content = self._apart(draft)
            for piece in pieces(reasoning or ""):
                yield event(head | _delta({"content": None, **self._thought(piece)}))
            for piece in pieces(content or ""):
                yield event(head | _delta({"content": piece}))
            if draft.finish is not None:
                yield event(head | _delta({}, draft.finish))
        if with_usage:
            yield from [event(head | {"choices": [], "usage": self._usage(draft.usage)})] * draft.usage_told
        yield DONE

    def error(self, status: int, message: str) -> Mapping[str, Any]:
        """The body of a refusal, as DeepSeek and OpenAI have it."""
        kind = kind_of(status)
        return {"error": {"message": message, "type": kind, "param": None, "code": kind}}

    def error_event(self, message: str) -> bytes:
        """A refusal in the middle of a stream."""
        return event(self.error(500, message))

    def models(self, names: Sequence[str]) -> Mapping[str, Any]:
        """The list of models."""
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": FINGERPRINT} for name in names]
        return {"object": "list", "data": rows}

    def _apart(self, draft: Draft) -> tuple[str | None, str | None]:
        """Reasoning and content as they are written; no closing tag where the thought was cut off."""
        if self.field or not draft.reasoning:
            return draft.reasoning or None, draft.content
        thinks_on = draft.finish in CUT_OFF and not draft.content
        answered = "" if thinks_on else self.closing + (draft.content or "")
        return None, self.opening + draft.reasoning + answered

    def _thought(self, text: str | None) -> dict[str, Any]:
        if not self.field:
            return {}
        if not self.details:
            return {self.field: text}
        part = {"type": "reasoning.text", "text": text, "format": "unknown", "index": 0}
        return {self.field: text, "reasoning_details": [part] if text else []}

    def _usage(self, usage: Usage) -> dict[str, Any]:
        read = usage.hit + usage.miss
        told: dict[str, Any] = {
            "prompt_tokens": read,
            "completion_tokens": usage.output,
            "total_tokens": read + usage.output,
            "prompt_tokens_details": {"cached_tokens": usage.hit},
        }
        if self.hits_and_misses:
            told |= {"prompt_cache_hit_tokens": usage.hit, "prompt_cache_miss_tokens": usage.miss}
            told["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
        return told

    def _head(self, draft: Draft, kind: str) -> dict[str, Any]:
        """`created` is 0: the same request gets the same bytes at any time."""
        return {
            "id": draft.id,
            "object": kind,
            "created": 0,
            "model": draft.model,
            "system_fingerprint": FINGERPRINT,
        }


def _note(draft: Draft) -> dict[str, Any]:
    return {"note": draft.note} if draft.note is not None else {}


def _delta(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}
