"""OpenAI's chat API, for plugins of teachers that speak it: one call, one whole answer or CallFailed.

The `openai` client does the talking, with its own retries off. What it hides, as measured: a body of blank
lines is a bare JSONDecodeError, an error in a 200 passes for an answer, and a stream that is cut ends as if
it were whole.
API: https://platform.openai.com/docs/api-reference/chat
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chainforge.calls import Call, CallFailed, Reply, Usage, refusal
from chainforge.reasoning import split_reasoning
from chainforge.secrets import without_key

if TYPE_CHECKING:
    import openai

CONNECT_S = 30.0
SYNTHETIC = "chainforge-mock"  # the system_fingerprint of `chainforge mock-teacher`
LABEL = "X-Client-Request-Id"


@dataclass(frozen=True, slots=True)
class ChatApi:
    """Where and how to ask. `parameters` are the request without messages, seed and stream."""

    url: str
    key: str
    model: str
    parameters: Mapping[str, Any]
    seeded: bool = False

    @asynccontextmanager
    async def connect(self, connections: int) -> "AsyncIterator[ChatClient]":
        """A client with room for so many calls at once. Deadlines are the caller's business."""
        import openai
        from httpx2 import Limits, Timeout

        timeout = Timeout(None, connect=CONNECT_S)
        limits = Limits(max_connections=connections, max_keepalive_connections=connections)
        http = openai.DefaultAsyncHttpxClient(limits=limits, timeout=timeout)
        async with openai.AsyncOpenAI(
            api_key=self.key, base_url=self.url, max_retries=0, timeout=timeout, http_client=http
        ) as sdk:
            yield ChatClient(self, sdk)


class ChatClient:
    """An open connection."""

    def __init__(self, api: ChatApi, sdk: "openai.AsyncOpenAI") -> None:
        self._api = api
        self._sdk = sdk

    async def ask(self, call: Call) -> Mapping[str, Any]:
        """The answer as the provider wrote it. Raises CallFailed."""
        import openai

        parts: dict[str, Any] = {}  # of a streamed answer
        answer: Mapping[str, Any]
        try:
            answer = await (self._streamed(call, parts) if call.on_text else self._whole(call))
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        except openai.APIConnectionError as error:
            refused = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
            raise self._broken(f"no connection: {error.__cause__ or error}", parts, not refused) from None
        except (openai.OpenAIError, ValueError) as error:  # ValueError: what is not JSON
            raise self._broken(f"not an answer: {error}", parts) from None
        if problem := defect(answer):
            raise self._broken(problem, answer)
        return answer

    def _request(self, call: Call) -> dict[str, Any]:
        body = dict(self._api.parameters) | {"max_tokens": call.max_tokens}
        if self._api.seeded:
            body["seed"] = call.seed
        return {
            "model": self._api.model,
            "messages": call.messages,
            "extra_body": body,
            "extra_headers": {LABEL: call.label},
        }

    async def _whole(self, call: Call) -> Any:
        response = await self._sdk.chat.completions.with_raw_response.create(**self._request(call))
        return self._clean(json.loads(response.text))

    async def _streamed(self, call: Call, parts: dict[str, Any]) -> Any:
        """The answer that the chunks make up, in the form of one that came whole."""
        assert call.on_text is not None
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        choice: dict[str, Any] = {"index": 0, "finish_reason": None, "message": message}
        options = {"stream": True, "stream_options": {"include_usage": True}}
        create: Any = self._sdk.chat.completions.create  # its overloads know no dict of arguments
        chunks = await create(**self._request(call), **options)
        async for chunk in chunks:
            said = chunk.to_dict()
            parts |= {key: said[key] for key in ("id", "model", "system_fingerprint") if key in said}
            if usage := said.get("usage"):
                parts["usage"] = usage
            for piece in said.get("choices") or []:
                parts["choices"] = [choice]
                choice["finish_reason"] = piece.get("finish_reason") or choice["finish_reason"]
                call.on_text(add(message, piece.get("delta") or {}))
        return self._clean(parts)

    def _refusal(self, error: "openai.APIStatusError") -> CallFailed:
        message = self._clean(f"{error.status_code}: {reason(error)}")
        return refusal(error.status_code, message, error.response.headers.get("retry-after", ""))

    def _broken(self, problem: str, came: Any, billed: bool = True) -> CallFailed:
        partial = self._clean(came) if choice_of(came) else None
        return CallFailed(self._clean(problem), billed=billed, partial=partial)

    def _clean(self, said: Any) -> Any:
        return without_key(self._api.key, said)


def reason(error: "openai.APIStatusError") -> str:
    """What the provider says."""
    body = error.body
    message = body.get("message") if isinstance(body, Mapping) else None
    return str(message or error.response.reason_phrase or "no reason given")


def add(message: dict[str, Any], delta: Mapping[str, Any]) -> int:
    """Append a chunk's text to the message; how many characters it had."""
    came = 0
    for field, value in delta.items():
        if field != "role" and isinstance(value, str):
            message[field] = message.get(field, "") + value
            came += len(value)
        elif field == "reasoning_details" and isinstance(value, list):
            message[field] = [*message.get(field, []), *value]
    return came


def defect(answer: Any) -> str | None:
    """Why this JSON is not a whole answer: it needs a choice, its finish reason, and the usage in numbers."""
    if not isinstance(answer, Mapping):
        return "the answer is not a JSON object"
    if error := answer.get("error"):
        return f"an error instead of an answer: {json.dumps(error)}"
    if not (choice := choice_of(answer)):
        return "an answer without choices"
    if not choice.get("finish_reason"):
        return "an answer without finish_reason: it was cut"
    counts = [_number(answer.get("usage"), name) for name in ("prompt_tokens", "completion_tokens")]
    return "an answer without usage" if None in counts else None


def choice_of(answer: Any) -> Mapping[str, Any] | None:
    """The first choice; None if there is nothing in it."""
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, Mapping) and first else None


def read_chat(answer: Mapping[str, Any]) -> Reply:
    """What an answer says, in the dialect of any provider."""
    choice = answer["choices"][0]
    message = choice.get("message")
    reasoning, content, source = split_reasoning(message if isinstance(message, Mapping) else {})
    return Reply(
        reasoning=reasoning,
        content=content,
        source=source,
        finish=str(choice["finish_reason"]),
        usage=read_usage(answer["usage"]),
        model=str(answer.get("model") or "unknown"),
        synthetic=str(answer.get("system_fingerprint")) == SYNTHETIC,
    )


def read_usage(usage: Mapping[str, Any]) -> Usage:
    """Tokens as DeepSeek counts them (`prompt_cache_hit_tokens`), or as OpenAI does (`cached_tokens`)."""
    cached = _count(usage, "prompt_tokens_details", "cached_tokens")
    hit = _count(usage, "prompt_cache_hit_tokens") or cached
    return Usage(
        hit=hit,
        miss=max(_count(usage, "prompt_tokens") - hit, 0),
        output=_count(usage, "completion_tokens"),
        reasoning=_count(usage, "completion_tokens_details", "reasoning_tokens"),
    )


def _count(found: Any, *path: str) -> int:
    return _number(found, *path) or 0


def _number(found: Any, *path: str) -> int | None:
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return int(found) if isinstance(found, int | float) and 0 <= found < 2**53 else None
