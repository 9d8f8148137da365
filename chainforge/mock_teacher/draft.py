"""What the server means to say, before a dialect puts it into JSON, and what faults take from it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from chainforge.providers.calls import Usage
from chainforge.records import Message

CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One answer. None becomes null.

    `usage` is what was generated, and so billed. The client is told of it `usage_copies` times: more than
    once in a stream only. Without `choices` there is neither text nor finish. `extra` has fields that no
    client knows.
    """

    id: str
    model: str
    reasoning: str | None = None
    content: str | None = None
    finish: str | None = None
    usage: Usage
    usage_copies: int = 1
    choices: bool = True
    extra: Mapping[str, str] = field(default_factory=dict)

    def say(self, reasoning: str, content: str, finish: str) -> Self:
        """The same answer with another text; the tokens of that text are billed."""
        thought = count_tokens(reasoning)
        usage = replace(self.usage, output=thought + count_tokens(content), reasoning=thought)
        return replace(self, reasoning=reasoning, content=content, finish=finish, usage=usage)

    def truncate(self, max_tokens: int | None) -> Self:
        """Cut off where the tokens run out."""
        if max_tokens is None or self.usage.output <= max_tokens:
            return self
        reasoning = (self.reasoning or "")[: max_tokens * CHARACTERS_PER_TOKEN]
        left = max_tokens - count_tokens(reasoning)
        return self.say(reasoning, (self.content or "")[: left * CHARACTERS_PER_TOKEN], "length")


def count_tokens(text: str) -> int:
    """A token is 4 characters, whatever they are."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def split_tokens(text: str | None) -> Iterable[str]:
    """Token by token; None has none."""
    text = text or ""
    return (text[i : i + CHARACTERS_PER_TOKEN] for i in range(0, len(text), CHARACTERS_PER_TOKEN))


def count_prompt(messages: Iterable[Message], *, cache: bool) -> Usage:
    """What a conversation costs to read. Only a system message that opens it can be in the cache.

    So the cost of a request depends on the request alone, not on those before it.
    """
    opening, *rest = messages
    system = count_tokens(opening["content"])
    hit = system if cache and opening["role"] == "system" else 0
    return Usage(hit=hit, miss=system - hit + sum(count_tokens(turn["content"]) for turn in rest), output=0)


def cut_reasoning(draft: Draft, finish: str) -> Draft:
    """It stops half-way through the reasoning."""
    return draft.say(_halve(draft.reasoning), "", finish)


def filter_content(draft: Draft) -> Draft:
    """Half of the content, then a filter stepped in."""
    return draft.say(draft.reasoning or "", _halve(draft.content), "content_filter")


def drop_reasoning(draft: Draft) -> Draft:
    """The content alone, as with thinking switched off."""
    return draft.say("", draft.content or "", draft.finish or "stop")


def _halve(text: str | None) -> str:
    return (text or "")[: len(text or "") // 2]
