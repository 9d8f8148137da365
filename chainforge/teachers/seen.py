"""Whether what a provider says that it counted can be true of the text that came."""

import re
from collections.abc import Sequence

from chainforge.calls import Reply
from chainforge.records import Message

LONGEST_TOKEN = 32  # bytes, on average over a text: no tokenizer comes near, once repeats are left out
REPEATS = re.compile(r"(.{1,8}?)\1{3,}", re.DOTALL)  # rows of blanks or signs: one token may be many


def is_possible(reply: Reply, messages: Sequence[Message]) -> bool:
    """Whether the usage is at least what any tokenizer would make of the prompt and of the answer."""
    usage = reply.usage
    asked = any(message["content"] for message in messages)
    if asked and usage.hit + usage.miss == 0:
        return False
    return usage.output >= fewest_tokens(reply.reasoning + reply.content, usage.output)


def fewest_tokens(text: str, said: int) -> int:
    """Fewer than these a text cannot be; where `said` is enough for the longest, that is not looked into."""
    size = len(text.encode(errors="replace"))
    if said * LONGEST_TOKEN >= size:
        return -(-size // LONGEST_TOKEN)
    return -(-len(REPEATS.sub(r"\1", text).encode(errors="replace")) // LONGEST_TOKEN)
