"""Whether what a provider says that it counted can be true of the text that came."""

import re
from collections.abc import Sequence

from chainforge.providers.calls import Reply
from chainforge.records import Message

LONGEST_TOKEN = 16  # bytes, on average over a text: no tokenizer comes near, once repeats are left out
REPEATS = re.compile(r"(.{1,8}?)\1{3,}", re.DOTALL)  # rows of blanks or signs: one token may be many


def is_possible(reply: Reply, messages: Sequence[Message]) -> bool:
    """Whether the usage is at least what any tokenizer would make of the prompt and of the answer."""
    usage, prompt = reply.usage, "".join(message["content"] for message in messages)
    return fits(usage.hit + usage.miss, prompt) and fits(usage.output, reply.reasoning + reply.content)


def fits(tokens: int, text: str) -> bool:
    """Whether a text may be so few tokens."""
    enough = tokens * LONGEST_TOKEN
    return len(text.encode(errors="replace")) <= enough or (
        len(REPEATS.sub(r"\1", text).encode(errors="replace")) <= enough
    )
