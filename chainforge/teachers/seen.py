"""Whether the token counts that a provider reports can be true of the text that came."""

import re
from collections.abc import Sequence

from chainforge.providers.calls import Reply
from chainforge.records import Message

LONGEST_TOKEN = (
    16  # bytes per token, averaged over a text: above what any tokenizer reaches, repeats left out
)
REPEATS = re.compile(
    r"(.{1,8}?)\1{3,}", re.DOTALL
)  # runs of blanks or signs, many of which one token can hold


def is_possible(reply: Reply, messages: Sequence[Message]) -> bool:
    """Whether the usage is at least what any tokenizer would make of the prompt and of the answer."""
    usage, prompt = reply.usage, "".join(message["content"] for message in messages)
    return fits(usage.hit + usage.miss, prompt) and fits(usage.output, reply.reasoning + reply.content)


def fits(tokens: int, text: str) -> bool:
    """Whether a text can be as few as `tokens` tokens."""
    enough = tokens * LONGEST_TOKEN
    return len(text.encode(errors="replace")) <= enough or (
        len(REPEATS.sub(r"\1", text).encode(errors="replace")) <= enough
    )
