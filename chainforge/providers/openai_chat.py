"""OpenAI's chat API, for plugins of teachers that speak it: one call, one whole answer or CallFailed.

The `openai` client sends and waits, with its own retries off. What comes is read here (chat_body.py), because
the client hides what was paid for: a body of blank lines is a bare JSONDecodeError, an error in a 200 passes
for an answer, a stream that is cut ends as if it were whole, and of a body that is cut nothing is left.
API: https://platform.openai.com/docs/api-reference/chat
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chainforge.providers.calls import Call, CallFailed, refusal, status_of
from chainforge.providers.chat_answer import choice_of, defect, error_in, read_chat
from chainforge.providers.chat_body import Body
from chainforge.providers.secrets import without_key

if TYPE_CHECKING:
    import openai

__all__ = ["ChatApi", "ChatClient", "read_chat"]

CONNECT_S = 30.0
LABEL = "X-Client-Request-Id"
LIMITS = ("max_tokens", "max_completion_tokens")  # the same limit; the server's name for it is found out


@dataclass(frozen=True, slots=True)
class ChatApi:
    """Where and how to ask. `parameters` are the request without messages, seed and stream; one that is None
    is not sent, `max_tokens` included."""

    url: str
    key: str
    model: str
    parameters: Mapping[str, Any]
    seeded: bool = False

    @asynccontextmanager
    async def connect(self, connections: int) -> "AsyncIterator[ChatClient]":
        """A client with room for `connections` calls at once. Deadlines are the caller's business."""
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
        named = api.parameters.get(LIMITS[1]) is not None  # else it is found out who wants it by that name
        self._limit = LIMITS[1] if named else LIMITS[0]
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
        from httpx2 import HTTPError

        body, trouble, sent = Body(call.on_text), "", True
        try:
            await self._fill(body, call)
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        except (openai.OpenAIError, HTTPError, OSError) as error:
            cause = error.__cause__ or error
            sent = type(cause).__name__ not in ("ConnectError", "ConnectTimeout")
            trouble = f"no connection: {cause or type(cause).__name__}"
            body.end()
        return self._read(body, trouble, sent)

    def _read(self, body: Body, trouble: str, sent: bool) -> Mapping[str, Any]:
        """The whole answer that came, even where the connection broke behind it. Raises CallFailed."""
        try:
            answer = body.answer()
        except ValueError as error:
            problem = f"not an answer: {error}" if body.text else "an empty body, without an answer"
            raise self._broken(trouble or problem, None, sent, text=body.text) from None
        wrong = defect(answer) or ("an event of the stream cannot be read" if body.is_broken else None)
        if body.error is not None and not wrong:
            wrong = f"an error among the events: {json.dumps(body.error)}"
        if wrong:
            said = error_in(answer) if body.error is None else body.error
            raise self._broken(trouble or wrong, answer, sent, said=said, text=body.text)
        whole: Mapping[str, Any] = self._clean(answer)
        return whole

    async def _fill(self, body: Body, call: Call) -> None:
        """Ask, and take in what comes, byte by byte: what came before a break was paid for, too."""
        create: Any = self._sdk.chat.completions.with_streaming_response.create
        stream = self._stream if call.on_text else {}
        async with create(**self._request(call), **stream) as response:
            async for came in response.iter_bytes():
                body.feed(came)
        body.end()

    def _request(self, call: Call) -> dict[str, Any]:
        given = self._api.parameters
        body = {key: value for key, value in given.items() if value is not None and key not in LIMITS}
        if given.get(self._limit, call.max_tokens) is not None:
            body[self._limit] = call.max_tokens
        if self._api.seeded:
            body["seed"] = call.seed
        return {
            "model": self._api.model,
            "messages": call.messages,
            "extra_body": body,
            "extra_headers": {LABEL: call.label},
        }

    def _refusal(self, error: "openai.APIStatusError") -> CallFailed:
        message = self._clean(f"{error.status_code}: {reason(error)}")
        poor = error.status_code == 429 and status_of(error.body) == 402  # OpenAI's `insufficient_quota`
        status = 402 if poor else error.status_code
        return refusal(status, message, error.response.headers.get("retry-after", ""))

    def _broken(
        self, problem: str, came: Any, billed: bool = True, said: object = None, text: str = ""
    ) -> CallFailed:
        """`said` is the error that the provider wrote inside a 200: it counts like a status."""
        problem, text = self._clean(problem), self._clean(text)
        partial = self._clean(came) if choice_of(came) else None
        if partial is None and (status := status_of(said)):
            return refusal(status, problem)
        return CallFailed(problem, billed=billed, partial=partial, raw_text=text or None)

    def _clean(self, said: Any) -> Any:
        return without_key(self._api.key, said)


def reason(error: "openai.APIStatusError") -> str:
    """What the provider says."""
    body = error.body
    message = body.get("message") if isinstance(body, Mapping) else None
    whole = json.dumps(body) if isinstance(body, Mapping) and body else None  # FastAPI says it in `detail`
    return str(message or whole or error.response.reason_phrase or "no reason given")
