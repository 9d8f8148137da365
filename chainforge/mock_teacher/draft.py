"""What the server means to say, before a dialect puts it into JSON."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from chainforge.mock_teacher.filler import CHARACTERS_PER_TOKEN
from chainforge.providers.calls import Usage
from chainforge.records import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One answer. None is said as null.

    `usage` is what was generated, and so billed. It is told `usage_told` times: more than once in a stream
    only. Without `choices` there is neither text nor finish. `note` is a field that no client knows.
    """

    id: str
    model: str
    reasoning: str | None
    content: str | None
    finish: str | None
    usage: Usage
    usage_told: int = 1
    choices: bool = True
    note: str | None = None

    def saying(self, reasoning: str, content: str, finish: str) -> Self:
        """Another text, and no other was generated."""
        thought = tokens(reasoning)
        usage = replace(self.usage, output=thought + tokens(content), reasoning=thought)
        return replace(self, reasoning=reasoning, content=content, finish=finish, usage=usage)

    def within(self, max_tokens: int | None) -> Self:
        """Cut off where the tokens run out."""
        if max_tokens is None or self.usage.output <= max_tokens:
            return self
        reasoning = first(self.reasoning or "", max_tokens)
        content = first(self.content or "", max_tokens - tokens(reasoning))
        return self.saying(reasoning, content, "length")


def tokens(text: str) -> int:
    """How many the mock counts: a token is 4 characters, whatever they are."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def first(text: str, count: int) -> str:
    """The first `count` tokens."""
    return text[: count * CHARACTERS_PER_TOKEN]


def pieces(text: str) -> Iterable[str]:
    """Token by token."""
    return (text[i : i + CHARACTERS_PER_TOKEN] for i in range(0, len(text), CHARACTERS_PER_TOKEN))


def prompt_usage(messages: Iterable[Message], *, cache: bool) -> Usage:
    """What a conversation costs to read. The cache has a system message that opens it, and nothing else.

    So the cost of a request depends on the request alone, not on what came before it.
    """
    first_turn, *rest = messages
    opening, others = tokens(first_turn["content"]), sum(tokens(turn["content"]) for turn in rest)
    hit = opening if cache and first_turn["role"] == "system" else 0
    return Usage(hit=hit, miss=opening - hit + others, output=0)
