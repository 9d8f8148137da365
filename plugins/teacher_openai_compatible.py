"""Teacher `openai_compatible`: DeepSeek, OpenRouter, vLLM, SGLang, whoever speaks OpenAI's chat API.

The key is read from the environment when the first call goes out, and written nowhere.

>>> OpenAICompatible(model="deepseek-reasoner")
Traceback (most recent call last):
chainforge.errors.ChainForgeError: DeepSeek retired the model name 'deepseek-reasoner' in July 2026
  -> use deepseek-flash with thinking: true (the default)
>>> OpenAICompatible(effort="max").identity["parameters"]
{'max_tokens': 32768, 'thinking': {'type': 'enabled'}, 'reasoning_effort': 'max'}
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import chainforge as cf
from chainforge.providers.openai_chat import ChatApi, read_chat

SAMPLES = ("n", "best_of", "num_return_sequences")  # fields that ask for several answers in one call
RETIRED = {"deepseek-reasoner": "thinking: true (the default)", "deepseek-chat": "thinking: false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A provider. `reason` makes the part of a request that turns reasoning on or off."""

    base_url: str | None
    key_env: str
    key_needed: bool = True
    model: str | None = None
    seeded: bool = False
    prices: Mapping[str, cf.Prices] | cf.Prices | None = None
    reason: Callable[[bool, str], Mapping[str, Any]] = lambda thinking, effort: {}


def deepseek_prices(hit: str, miss: str, output: str) -> cf.Prices:
    """api-docs.deepseek.com/quick_start/pricing: twice as much 01-04 and 06-10 UTC, Monday to Friday."""
    return cf.Prices(
        table="deepseek 2026-11-15",
        hit=Decimal(hit),
        miss=Decimal(miss),
        output=Decimal(output),
        peak_factor=Decimal(2),
        peak_hours=((1, 4), (6, 10)),
    )


FLASH = deepseek_prices("0.003", "0.15", "0.60")
PRESETS: Mapping[str, Preset] = {
    "deepseek": Preset(
        base_url="https://api.deepseek.com",
        key_env="DEEPSEEK_API_KEY",
        model="deepseek-flash",
        prices={
            "deepseek-flash": FLASH,
            "deepseek-v4-flash": FLASH,
            "deepseek-v4-pro": deepseek_prices("0.022", "0.66", "1.98"),
        },
        reason=lambda thinking, effort: (
            {"thinking": {"type": "enabled"}, "reasoning_effort": effort}
            if thinking
            else {"thinking": {"type": "disabled"}}
        ),
    ),
    "openrouter": Preset(
        base_url="https://openrouter.ai/api/v1",
        key_env="OPENROUTER_API_KEY",
        reason=lambda thinking, effort: {"reasoning": {"effort": effort} if thinking else {"enabled": False}},
    ),
    "vllm": Preset(
        base_url="http://127.0.0.1:8000/v1",
        key_env="VLLM_API_KEY",
        key_needed=False,
        seeded=True,
        prices=cf.FREE,
    ),
    "sglang": Preset(
        base_url="http://127.0.0.1:30000/v1",
        key_env="SGLANG_API_KEY",
        key_needed=False,
        seeded=True,
        prices=cf.FREE,
        reason=lambda thinking, effort: {"separate_reasoning": True},
    ),
    "generic": Preset(base_url=None, key_env="OPENAI_API_KEY", key_needed=False),
}


@dataclass(frozen=True, kw_only=True)
class OpenAICompatible:
    """How a provider is asked. What is None is the preset's, or not sent."""

    preset: str = "deepseek"  # deepseek, openrouter, vllm, sglang, generic
    model: str | None = None
    base_url: str | None = None
    key_env: str | None = None  # the environment variable that holds the key
    thinking: bool = True
    effort: str = "high"  # how long to think, where a provider takes that: low, high, max
    max_tokens: int = 32768  # of reasoning and answer together
    temperature: float | None = None
    top_p: float | None = None
    send_seed: bool | None = None  # one per sample; only some providers take it
    usd_per_million: dict[str, float] | None = None  # {hit, miss, output} where the preset has no price
    finishes: dict[str, str] = field(default_factory=dict)  # what other finish reasons mean: {fin: stop}
    extra_body: dict[str, Any] = field(default_factory=dict)  # more of the request; null leaves a field out

    def __post_init__(self) -> None:
        cf.refuse_keys({"base_url": self.base_url, "key_env": self.key_env, "extra_body": self.extra_body})
        if self.preset not in PRESETS:
            raise cf.ChainForgeError(
                f"there is no preset called {self.preset!r}", f"known: {', '.join(PRESETS)}"
            )
        if self.preset == "deepseek" and self.model in RETIRED:
            raise cf.ChainForgeError(
                f"DeepSeek retired the model name {self.model!r} in July 2026",
                f"use deepseek-flash with {RETIRED[self.model]}",
            )
        for name in ("model", "base_url"):
            if not (getattr(self, name) or getattr(PRESETS[self.preset], name)):
                raise cf.ChainForgeError(f"preset {self.preset} needs a {name}", f"set teacher.{name}")
        refuse_extra(self.extra_body, self.max_tokens)
        if unmeant := sorted(set(self.finishes.values()) - {"stop", "length", "content_filter", "error"}):
            known = "it is stop, length, content_filter or error"
            raise cf.ChainForgeError(f"finishes has the meaning {unmeant[0]!r}", known)
        if self.max_tokens < 1:
            raise cf.ChainForgeError(f"max_tokens is {self.max_tokens}", "it is at least 1")
        if self.usd_per_million is not None:
            cf.Prices.as_set(self.usd_per_million)
        if self.preset == "deepseek" and self.thinking and self.temperature is not None:
            raise cf.ChainForgeError(
                "DeepSeek ignores temperature while it thinks", "leave it out, or set thinking: false"
            )

    @property
    def url(self) -> str:
        return self.base_url or str(PRESETS[self.preset].base_url)

    @property
    def served(self) -> str:
        return self.model or str(PRESETS[self.preset].model)

    @property
    def seeded(self) -> bool:
        return PRESETS[self.preset].seeded if self.send_seed is None else self.send_seed

    @property
    def thinks(self) -> bool:
        return self.thinking

    @property
    def prices(self) -> cf.Prices | None:
        if self.usd_per_million is not None:
            return cf.Prices.as_set(self.usd_per_million)
        known = PRESETS[self.preset].prices
        return known if isinstance(known, cf.Prices | None) else known.get(self.served)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The request without messages and seed; what is None is left out of it."""
        sampling = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}
        reason = PRESETS[self.preset].reason(self.thinking, self.effort)
        return {k: v for k, v in sampling.items() if v is not None} | dict(reason) | self.extra_body

    @property
    def identity(self) -> Mapping[str, Any]:
        elsewhere = f"@{urlsplit(self.base_url).hostname}" if self.base_url else ""
        sent = {name: value for name, value in self.parameters.items() if value is not None}
        return {"provider": f"{self.preset}{elsewhere}", "model": self.served, "parameters": sent}

    def client(self, *, connections: int) -> AbstractAsyncContextManager[cf.ApiClient]:
        """Raises ChainForgeError where the key is missing."""
        preset = PRESETS[self.preset]
        key = cf.secret(self.key_env or preset.key_env, needed=preset.key_needed)
        return ChatApi(self.url, key, self.served, self.parameters, self.seeded).connect(connections)

    def read(self, answer: Mapping[str, Any]) -> cf.Reply:
        reply = read_chat(answer)
        return replace(reply, finish=self.finishes.get(reply.finish, reply.finish))


def refuse_extra(extra_body: Mapping[str, Any], max_tokens: int) -> None:
    """Raise ChainForgeError for a field on which the bill depends, and of which nobody here would know."""
    if several := [name for name in SAMPLES if extra_body.get(name) not in (None, 1)]:
        problem = f"extra_body has {several[0]}, which asks for several answers at once"
        raise cf.ChainForgeError(problem, "leave it out; samples (--samples) asks for each by itself")
    for name in ("max_tokens", "max_completion_tokens"):
        if (limit := extra_body.get(name)) not in (None, max_tokens):
            raise cf.ChainForgeError(
                f"extra_body has {name}: {limit}, and the budget counts on max_tokens: {max_tokens}",
                f"set teacher.max_tokens: {limit}; extra_body only says whether it is sent, and as what",
            )


@cf.hookimpl
def register_teachers(register: Callable[[str, Any], None]) -> None:
    register("openai_compatible", OpenAICompatible)
