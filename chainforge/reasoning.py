"""Where providers put a model's reasoning, and how to keep it out of a conversation's history."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from chainforge.records import Message

FIELDS = (
    "reasoning_content",
    "reasoning",
)  # DeepSeek, SGLang, Fireworks, Moonshot; vLLM, OpenRouter, Together
INLINE = (("<think>", "</think>"), ("◁think▷", "◁/think▷"))
TAGS = (*INLINE, ("<reasoning_process>", "</reasoning_process>"))  # the last are those of our own models
BLOCKS = re.compile("|".join(f"{opening}.*?{closing}" for opening, closing in TAGS), re.DOTALL)


def split_reasoning(message: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """(reasoning, content, where the reasoning was) of an assistant's message; None where there is none.

    The first of: `reasoning_content`, `reasoning`, texts in `reasoning_details`, and `content` up to the
    first `</think>`, whose opening tag R1 often leaves out.
    """
    content = message.get("content")
    content = content if isinstance(content, str) else ""
    for field in FIELDS:
        if isinstance(value := message.get(field), str) and value.strip():
            return value.strip(), content.strip(), field
    if detailed := "".join(_detailed(message.get("reasoning_details"))).strip():
        return detailed, content.strip(), "reasoning_details"
    for opening, closing in INLINE:
        before, found, after = content.partition(closing)
        started = before.lstrip().startswith(opening)
        if found or started:
            reasoning = before.lstrip().removeprefix(opening).strip()
            return reasoning, after.strip(), "inline" if reasoning else None
    return "", content.strip(), None


def _detailed(details: Any) -> Iterable[str]:
    for part in details if isinstance(details, list) else ():
        if isinstance(part, Mapping):
            value = part.get("text") or part.get("summary")
            if isinstance(value, str):
                yield value


def without_reasoning(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The conversation with earlier answers only: what an assistant thought is left out of its turns."""
    return tuple(
        Message(role=m["role"], content=_answer(m["content"])) if m["role"] == "assistant" else m
        for m in messages
    )


def _answer(content: str) -> str:
    """Empty if there was only thought, and what came before a thought that was cut off."""
    rest = BLOCKS.sub("", content)
    for _, closing in TAGS:
        rest = rest.rpartition(closing)[2]  # what is closed here was opened in the chat template
    for opening, _ in TAGS:
        rest = rest.partition(opening)[0]
    return rest.strip()
