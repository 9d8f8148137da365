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

from chainforge.calls import Call, CallFailed, refusal, status_of
from chainforge.chat_answer import add, choice_of, defect, error_in, read_chat
from chainforge.secrets import without_key

if TYPE_CHECKING:
    import openai

__all__ = ["ChatApi", "ChatClient", "read_chat"]

CONNECT_S = 30.0
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
        self._limit = "max_tokens"  # or "max_completion_tokens", where a server wants it by that name
        self._stream: Mapping[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}

    async def ask(self, call: Call) -> Mapping[str, Any]:
        """The answer as the provider wrote it. Raises CallFailed.

        A server that refuses one of our own fields by name is asked again without it, at once: nothing was
        billed, and the next calls of this client leave it out.
        """
        before = (self._limit, self._stream)
        try:
            return await self._once(call)
        except CallFailed as failure:
            if failure.status not in (400, 422) or not self._adapts(str(failure), *before):
                raise
        return await self.ask(call)

    def _adapts(self, refused: str, limit: str, stream: Mapping[str, Any]) -> bool:
        """Whether the next try differs from the refused one, which had this `limit` and `stream`."""
        if "max_completion_tokens" in refused:
            self._limit = "max_completion_tokens"
        if "stream_options" in refused or "include_usage" in refused:
            self._stream = {"stream": True}
        return (self._limit, self._stream) != (limit, stream)

    async def _once(self, call: Call) -> Mapping[str, Any]:
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
            raise self._broken(f"not an answer: {error}", parts, said=getattr(error, "body", None)) from None
        if problem := defect(answer):
            raise self._broken(problem, answer, said=error_in(answer))
        return answer

    def _request(self, call: Call) -> dict[str, Any]:
        body = {key: value for key, value in self._api.parameters.items() if key != "max_tokens"}
        body[self._limit] = call.max_tokens
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
        create: Any = self._sdk.chat.completions.create  # its overloads know no dict of arguments
        chunks = await create(**self._request(call), **self._stream)
        choices: dict[int, dict[str, Any]] = {}  # by index: samples are never merged
        async for chunk in chunks:
            said = chunk.to_dict(warnings=False)
            parts |= {key: said[key] for key in ("id", "model", "system_fingerprint") if key in said}
            if usage := said.get("usage"):
                parts["usage"] = usage
            for piece in said.get("choices") or []:
                if (number := int(piece.get("index") or 0)) not in choices:
                    choices[number] = begun(number)
                    parts["choices"] = [choices[known] for known in sorted(choices)]
                choice = choices[number]
                choice["finish_reason"] = piece.get("finish_reason") or choice["finish_reason"]
                call.on_text(add(choice["message"], piece.get("delta") or {}))
        return self._clean(parts)

    def _refusal(self, error: "openai.APIStatusError") -> CallFailed:
        message = self._clean(f"{error.status_code}: {reason(error)}")
        poor = error.status_code == 429 and status_of(error.body) == 402  # OpenAI's `insufficient_quota`
        status = 402 if poor else error.status_code
        return refusal(status, message, error.response.headers.get("retry-after", ""))

    def _broken(self, problem: str, came: Any, billed: bool = True, said: object = None) -> CallFailed:
        """`said` is the error that the provider wrote inside a 200: it counts like a status."""
        partial = self._clean(came) if choice_of(came) else None
        if partial is None and (status := status_of(said)):
            return refusal(status, self._clean(problem))
        return CallFailed(self._clean(problem), billed=billed, partial=partial)

    def _clean(self, said: Any) -> Any:
        return without_key(self._api.key, said)


def begun(number: int) -> dict[str, Any]:
    """A choice of which nothing has come yet."""
    return {"index": number, "finish_reason": None, "message": {"role": "assistant", "content": ""}}


def reason(error: "openai.APIStatusError") -> str:
    """What the provider says."""
    body = error.body
    message = body.get("message") if isinstance(body, Mapping) else None
    whole = (
        json.dumps(body) if isinstance(body, Mapping) and body else None
    )  # FastAPI's servers say it in `detail`
    return str(message or whole or error.response.reason_phrase or "no reason given")
