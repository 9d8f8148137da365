"""Where providers put a model's reasoning, and how to keep it out of a conversation's history."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from chainforge.records import Message

# DeepSeek, SGLang, Fireworks, Moonshot; vLLM, OpenRouter, Together; Ollama.
FIELDS = ("reasoning_content", "reasoning", "thinking")
INLINE = (
    ("<think>", "</think>"),  # R1, Qwen3
    ("◁think▷", "◁/think▷"),  # Kimi
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<mm:think>", "</mm:think>"),  # MiniMax
    ("<thought>", "</thought>"),  # Gemini
)
TAGS = (*INLINE, ("<reasoning_process>", "</reasoning_process>"))  # the last are those of our own models
BLOCKS = re.compile(
    "|".join(f"{re.escape(opening)}.*?{re.escape(closing)}" for opening, closing in TAGS), re.DOTALL
)
# gpt-oss: `<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…`
CHANNEL = re.compile(
    r"(?:<\|start\|>assistant)?<\|channel\|>\s*(\w+)[^<]*<\|message\|>(.*?)"
    r"(?:<\|end\|>|<\|return\|>|(?=<\|start\|>|<\|channel\|>)|\Z)",
    re.DOTALL,
)


def split_reasoning(message: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """(reasoning, content, where the reasoning was) of an assistant's message; None where there is none.

    The first of: the fields `reasoning_content`, `reasoning` and `thinking`, texts in `reasoning_details`,
    parts of the content that are marked as thinking, gpt-oss's channels, and `content` up to the first
    closing tag, whose opening tag R1 often leaves out. Where a server puts reasoning into a field but leaves
    its end in the content, the content begins after the closing tag.
    """
    thought, content = _parts(message.get("content"))
    apart = [(message.get(field), field) for field in FIELDS]
    apart += [
        ("".join(_detailed(message.get("reasoning_details"))), "reasoning_details"),
        (thought, "content"),
    ]
    inline, answer = _inline(content)
    for value, source in apart:
        if isinstance(value, str) and value.strip():
            return value.strip(), answer.strip(), source
    return inline.strip(), answer.strip(), "inline" if inline.strip() else None


def _inline(content: str) -> tuple[str, str]:
    """(reasoning, answer) of a text that may hold both."""
    if channels := _channels(content):
        return "".join(t for name, t in channels if name != "final"), _final(channels)
    for opening, closing in INLINE:
        before, found, after = content.partition(closing)
        if found or before.lstrip().startswith(opening):
            return before.lstrip().removeprefix(opening), after
    return "", content


def _channels(content: str) -> list[tuple[str, str]]:
    """gpt-oss's channels in order, as (name, text); none in a text that does not begin with one."""
    begins = content.lstrip().startswith(("<|channel|>", "<|start|>assistant<|channel|>"))
    return CHANNEL.findall(content) if begins else []


def _final(channels: Iterable[tuple[str, str]]) -> str:
    return "".join(text for name, text in channels if name == "final")


def _parts(content: Any) -> tuple[str, str]:
    """(thought, text) of a content that is a list of parts, as Mistral writes it; a text is no thought."""
    if not isinstance(content, list):
        return "", content if isinstance(content, str) else ""
    thought, text = [], []
    for part in content:
        if isinstance(part, str):
            text.append(part)
        elif isinstance(part, Mapping):
            inner = part.get("thinking") or part.get("reasoning")
            thought.append(_parts(inner)[1])
            text.append(part["text"] if not inner and isinstance(part.get("text"), str) else "")
    return "".join(thought), "".join(text)


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
    if channels := _channels(content):
        content = _final(channels)
    rest = BLOCKS.sub("", content)
    for _, closing in TAGS:
        rest = rest.rpartition(closing)[2]  # what is closed here was opened in the chat template
    for opening, _ in TAGS:
        rest = rest.partition(opening)[0]
    return rest.strip()
