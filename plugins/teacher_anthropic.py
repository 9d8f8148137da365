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
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import chainforge as cf

if TYPE_CHECKING:
    import anthropic

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
    extra_body: dict[str, Any] = field(default_factory=dict)  # more of the request, as the provider wants it

    seeded = False

    def __post_init__(self) -> None:
        if not 0 <= self.thinking_tokens < self.max_tokens:
            raise cf.ChainForgeError(
                f"thinking_tokens is {self.thinking_tokens}, max_tokens {self.max_tokens}",
                "thinking needs room for the answer behind it: make it smaller than max_tokens",
            )
        if self.usd_per_million is not None and set(self.usd_per_million) != {"hit", "miss", "output"}:
            raise cf.ChainForgeError(
                f"usd_per_million has {sorted(self.usd_per_million)}", "it has hit, miss and output"
            )

    @property
    def prices(self) -> cf.Prices | None:
        if self.usd_per_million is None:
            return None
        hit, miss, output = (Decimal(str(self.usd_per_million[k])) for k in ("hit", "miss", "output"))
        return cf.Prices(table="as set", hit=hit, miss=miss, output=output)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The request without messages."""
        thinking = {"type": "enabled", "budget_tokens": self.thinking_tokens}
        return (
            {"max_tokens": self.max_tokens}
            | ({"thinking": thinking} if self.thinking_tokens else {})
            | self.extra_body
        )

    @property
    def identity(self) -> Mapping[str, Any]:
        elsewhere = f"@{urlsplit(self.base_url).hostname}" if self.base_url else ""
        provider = f"anthropic{elsewhere}"
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
        blocks = answer["content"]
        reasoning = "".join(b["thinking"] for b in blocks if b["type"] == "thinking").strip()
        usage, finish = answer["usage"], answer["stop_reason"]
        written = usage.get("cache_creation_input_tokens") or 0
        return cf.Reply(
            reasoning=reasoning,
            content="".join(b["text"] for b in blocks if b["type"] == "text").strip(),
            source="thinking" if reasoning else None,
            finish=FINISHES.get(finish, str(finish)),
            usage=cf.Usage(
                hit=usage.get("cache_read_input_tokens") or 0,
                miss=(usage.get("input_tokens") or 0) + written,
                output=usage["output_tokens"],
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

        turns = [dict(m) for m in call.messages if m["role"] != "system"]
        system = "\n\n".join(m["content"] for m in call.messages if m["role"] == "system")
        body = dict(self._teacher.parameters) | {"max_tokens": call.max_tokens}
        request: dict[str, Any] = {"model": self._teacher.model, "messages": turns}
        partial: Mapping[str, Any] | None = None
        try:
            create: Any = self._sdk.messages.stream  # its overloads know no dict of arguments
            async with create(
                **request,
                **({"system": system} if system else {}),
                max_tokens=call.max_tokens,
                extra_body=body,
                extra_headers={"X-Client-Request-Id": call.label},
            ) as stream:
                async for event in stream:
                    if event.type in ("text", "thinking") and call.on_text:
                        call.on_text(len(getattr(event, event.type)))
                partial = (await stream.get_final_message()).to_dict()
        except anthropic.APIStatusError as error:
            after = error.response.headers.get("retry-after", "")
            raise self._failed(
                f"{error.status_code}: {error.message}",
                status=error.status_code,
                retry_after=float(after) if after.isdigit() else None,
                billed=False,
            ) from None
        except anthropic.APIConnectionError as error:
            sent = type(error.__cause__).__name__ not in ("ConnectError", "ConnectTimeout")
            raise self._failed(f"no connection: {error.__cause__ or error}", billed=sent) from None
        except (anthropic.AnthropicError, ValueError) as error:
            raise self._failed(f"not an answer: {error}") from None
        if not partial.get("stop_reason") or not partial.get("usage"):
            raise self._failed("an answer without stop_reason or usage: it was cut", partial=partial)
        return partial

    def _failed(self, message: str, **about: Any) -> cf.CallFailed:
        return cf.CallFailed(message.replace(self._key, "[key]")[:500], **about)


@cf.hookimpl
def register_teachers(register: Callable[[str, Any], None]) -> None:
    register("anthropic", Anthropic)
