"""Teacher `anthropic`: Claude with extended thinking, or whoever speaks Anthropic's messages API.

It needs the optional package: pip install 'chainforge-r1[anthropic]'. The key is read from the environment.
API: https://docs.anthropic.com/en/api/messages

>>> blocks = [{"type": "thinking", "thinking": "6*7"}, {"type": "text", "text": "42"}]
>>> answer = {"content": blocks, "stop_reason": "end_turn", "model": "m", "usage": {"output_tokens": 9}}
>>> reply = Anthropic(model="m").read(answer)
>>> reply.reasoning, reply.content, reply.finish
('6*7', '42', 'stop')
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import chainforge as cf

if TYPE_CHECKING:
    import anthropic

ODD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)  # JSON of another shape
FINISHES = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "refusal": "content_filter"}


@dataclass(frozen=True, kw_only=True)
class Anthropic:
    """How the API is asked. `usd_per_million` has no default: prices differ by model, and change."""

    model: str
    base_url: str | None = None
    key_env: str = "ANTHROPIC_API_KEY"
    thinking_tokens: int = 16000  # of max_tokens; 0 turns thinking off
    max_tokens: int = 32000  # of reasoning and answer together
    usd_per_million: dict[str, float] | None = None  # {hit, miss, output}
    finishes: dict[str, str] = field(default_factory=dict)  # what other stop reasons mean: {fin: stop}
    extra_body: dict[str, Any] = field(default_factory=dict)  # more of the request, as the provider wants it

    seeded = False

    def __post_init__(self) -> None:
        cf.refuse_keys({"base_url": self.base_url, "key_env": self.key_env, "extra_body": self.extra_body})
        if not 0 <= self.thinking_tokens < self.max_tokens:
            raise cf.ChainForgeError(
                f"thinking_tokens is {self.thinking_tokens}, max_tokens {self.max_tokens}",
                "thinking needs room for the answer behind it: make it smaller than max_tokens",
            )
        if self.usd_per_million is not None:
            cf.Prices.as_set(self.usd_per_million)

    @property
    def prices(self) -> cf.Prices | None:
        return None if self.usd_per_million is None else cf.Prices.as_set(self.usd_per_million)

    @property
    def thinks(self) -> bool:
        return self.thinking_tokens > 0

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The request without messages."""
        thinking = {"thinking": {"type": "enabled", "budget_tokens": self.thinking_tokens}}
        asked = {"max_tokens": self.max_tokens} | (thinking if self.thinks else {}) | self.extra_body
        return {k: v for k, v in asked.items() if v is not None}

    @property
    def identity(self) -> Mapping[str, Any]:
        provider = "anthropic" + (f"@{urlsplit(self.base_url).hostname}" if self.base_url else "")
        return {"provider": provider, "model": self.model, "parameters": dict(self.parameters)}

    @asynccontextmanager
    async def client(self, *, connections: int) -> AsyncIterator[cf.ApiClient]:
        """Raises ChainForgeError where the package or the key is missing."""
        try:
            import anthropic
        except ImportError:
            raise cf.ChainForgeError(
                "teacher anthropic needs the package anthropic", "pip install 'chainforge-r1[anthropic]'"
            ) from None
        from httpx2 import Limits, Timeout

        key, timeout = cf.secret(self.key_env), Timeout(None, connect=30.0)
        limits = Limits(max_connections=connections, max_keepalive_connections=connections)
        http = anthropic.DefaultAsyncHttpxClient(limits=limits, timeout=timeout)
        async with anthropic.AsyncAnthropic(
            api_key=key, base_url=self.base_url, max_retries=0, timeout=timeout, http_client=http
        ) as sdk:
            yield Client(self, sdk, key)

    def read(self, answer: Mapping[str, Any]) -> cf.Reply:
        blocks, usage, finish = answer["content"], answer.get("usage"), answer["stop_reason"]
        reasoning = "".join(b["thinking"] for b in blocks if b["type"] == "thinking").strip()
        return cf.Reply(
            reasoning=reasoning,
            content="".join(b["text"] for b in blocks if b["type"] == "text").strip(),
            source="thinking" if reasoning else None,
            finish=(FINISHES | self.finishes).get(finish, str(finish)),
            usage=cf.Usage(
                hit=count(usage, "cache_read_input_tokens"),
                miss=count(usage, "input_tokens") + count(usage, "cache_creation_input_tokens"),
                output=count(usage, "output_tokens"),
            ),
            model=str(answer.get("model") or self.model),
            synthetic=bool(answer.get("synthetic")),
        )


class Client:
    """An open connection."""

    def __init__(self, teacher: Anthropic, sdk: "anthropic.AsyncAnthropic", key: str) -> None:
        self._teacher, self._sdk, self._key = teacher, sdk, key

    async def ask(self, call: cf.Call) -> Mapping[str, Any]:
        """One call; always streamed, as the API wants it for long answers. Raises CallFailed."""
        import anthropic
        from httpx2 import HTTPError

        said: dict[str, Any] = {}
        try:
            await self._stream(call, said)
        except anthropic.APIStatusError as error:
            inside = cf.status_of(plain(error.body).get("error", error.body))
            status = error.status_code if error.status_code >= 300 else inside
            if status and not said:  # else an error among the events
                text = cf.without_key(self._key, f"{status}: {error.message}")
                raise cf.refusal(status, text, error.response.headers.get("retry-after", "")) from None
            raise self._broken(f"an error among the events: {error.message}", said) from None
        except (anthropic.APIConnectionError, HTTPError) as error:  # the latter once the stream is open
            cause = error.__cause__ or error
            sent = type(cause).__name__ not in ("ConnectError", "ConnectTimeout")
            raise self._broken(f"no connection: {cause!r}", said, billed=sent) from None
        except (anthropic.AnthropicError, *ODD) as error:
            raise self._broken(f"not an answer: {error!r}", said) from None  # JSON of any other shape
        if not said.get("stop_reason"):
            raise self._broken("a stream without a whole message: stop_reason is missing", said)
        return dict(cf.without_key(self._key, said))

    async def _stream(self, call: cf.Call, said: dict[str, Any]) -> None:
        """Ask, and add to `said` as the answer comes."""
        system = "\n\n".join(m["content"] for m in call.messages if m["role"] == "system")
        turns = [dict(m) for m in call.messages if m["role"] != "system" and m["content"]]
        create: Any = self._sdk.messages.create  # its overloads know no dict of arguments
        events = await create(
            model=self._teacher.model,
            messages=turns,  # an empty one, of which only thought was there, the API would refuse
            **({"system": system} if system else {}),
            max_tokens=call.max_tokens,
            stream=True,
            extra_body=dict(self._teacher.parameters) | {"max_tokens": call.max_tokens},
            extra_headers={"X-Client-Request-Id": call.label},
        )
        if "event-stream" not in (kind := events.response.headers.get("content-type", "")):
            text = cf.without_key(self._key, (await events.response.aread()).decode(errors="replace"))
            raise cf.CallFailed(f"{kind}: {text[:200]!r}", raw_text=text)
        async for event in events:
            came = absorb(said, event.to_dict(warnings=False))
            if call.on_text:
                call.on_text(came)

    def _broken(self, problem: str, said: Mapping[str, Any], billed: bool = True) -> cf.CallFailed:
        came = cf.without_key(self._key, said) if said.get("content") else None
        return cf.CallFailed(cf.without_key(self._key, problem), billed=billed, partial=came)


def absorb(said: dict[str, Any], event: Mapping[str, Any]) -> int:
    """Add an event of a stream to the message that it is of; how many characters of text it had."""
    came = 0
    match event["type"]:
        case "message_start":
            begun = event["message"]
            said.update(begun, content=[], usage=plain(begun.get("usage")) | {"output_tokens": None})
        case "content_block_start":
            said["content"].append(dict(event["content_block"]))
        case "content_block_delta":
            block = said["content"][event["index"]]
            for name, text in event["delta"].items():
                if name != "type" and isinstance(text, str):
                    block[name] = (block.get(name) or "") + text
                    came += len(text) if name != "signature" else 0
        case "message_delta":
            said.update(event["delta"], usage=said["usage"] | plain(event.get("usage")))  # counted at the end
    return came


def plain(said: Any) -> dict[str, Any]:
    return said if isinstance(said, dict) else {}


def count(usage: Any, name: str) -> int:
    """Tokens; 0 where nobody said how many."""
    said = plain(usage).get(name)
    return int(said) if isinstance(said, int | float) and 0 <= said < 2**53 else 0


@cf.hookimpl
def register_teachers(register: Callable[[str, Any], None]) -> None:
    register("anthropic", Anthropic)
