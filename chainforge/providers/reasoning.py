"""Where providers put a model's reasoning, and how to keep it out of a conversation's history."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from chainforge.records import Message

# DeepSeek, SGLang, Fireworks, Moonshot; vLLM, OpenRouter, Together; Ollama; Copilot; LiteLLM.
FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_text", "thinking_blocks")
INLINE = (
    ("<think>", "</think>"),  # R1, Qwen3
    ("◁think▷", "◁/think▷"),  # Kimi
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<mm:think>", "</mm:think>"),  # MiniMax
    ("<thought>", "</thought>"),  # Gemini
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("<longcat_think>", "</longcat_think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
)
LEFT_OUT = INLINE[:5]  # their opening tag may be missing: it was in the prompt
AROUND_AN_ANSWER = (
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
)
OF_OUR_MODELS = (("<summary>", "</summary>"), ("<answer>", "</answer>"))
THOUGHT = frozenset(
    {"thinking", "reasoning", "thought", "reasoning_text", "summary_text", "redacted_thinking"}
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
BARE_CHANNELS = re.compile(
    r"\s*analysis(?=\S)(.*?)assistantfinal(.*)", re.DOTALL
)  # without their control tokens


def split_reasoning(message: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """(reasoning, content, where the reasoning was) of an assistant's message; None where there is none.

    The first of: the fields of FIELDS, texts in `reasoning_details`, parts of the content that are marked as
    thinking, gpt-oss's channels, and the tags of INLINE in `content`, whose opening one R1 often leaves out.
    Where a server puts reasoning into a field but leaves its end in the content, the content begins after the
    closing tag; where it puts all into the field, after the closing tag there.
    """
    thought, content = _parts(message.get("content"))
    inline, answer = _inline(content)
    places = [(_text_of(message.get(field)), field) for field in FIELDS]
    places += [(_text_of(message.get("reasoning_details")), "reasoning_details")]
    places += [(thought, "content"), (inline, "inline")]
    for value, source in places:
        if value.strip():
            if not answer.strip() and source in FIELDS:
                inside, after = _inline(value)
                value, answer = (inside, after) if after.strip() and inside.strip() else (value, answer)
                answer = answer or _before_stray(content)
            return value.strip(), answer.strip(), source
    return "", answer.strip(), None


def _inline(content: str) -> tuple[str, str]:
    """(reasoning, answer) of a text that may hold both."""
    if channels := _channels(content):
        return "".join(t for name, t in channels if name != "final"), _final(channels)
    if bare := BARE_CHANNELS.fullmatch(content):
        return bare[1], bare[2]
    thoughts, rest = _leading(content)
    if not thoughts:
        for opening, closing in LEFT_OUT:
            before, found, after = rest.partition(closing)
            if found:
                thoughts, rest = [before.lstrip().removeprefix(opening)], _leading(after)[1]
                break
    for opening, closing in AROUND_AN_ANSWER:
        if rest.lstrip().startswith(opening):
            rest = rest.lstrip().removeprefix(opening).rstrip().removesuffix(closing)
    return "".join(thoughts), rest


def _leading(content: str) -> tuple[list[str], str]:
    """(thoughts in tags at the start of a text, what is behind them and behind stray closing tags)."""
    thoughts: list[str] = []
    while True:
        start = content.lstrip()
        if stray := next((closing for _, closing in INLINE if start.startswith(closing)), None):
            content = start.removeprefix(stray)
            continue
        pair = next((pair for pair in INLINE if start.startswith(pair[0])), None)
        if pair is None:
            return thoughts, content
        inside, _, content = start.removeprefix(pair[0]).partition(pair[1])
        thoughts.append(inside.replace(pair[0], ""))


def _before_stray(content: str) -> str:
    """The text in front of closing tags that stand at its end, where it is no thought itself."""
    left = content.rstrip()
    while stray := next((closing for _, closing in LEFT_OUT if left.endswith(closing)), None):
        left = left.removesuffix(stray).rstrip()
    return "" if left == content.rstrip() or left.lstrip().startswith(tuple(o for o, _ in INLINE)) else left


def _channels(content: str) -> list[tuple[str, str]]:
    """gpt-oss's channels in order, as (name, text); none in a text that does not begin with one."""
    start = content.lstrip()
    if start.startswith(("analysis<|message|>", "final<|message|>")):
        start = f"<|channel|>{start}"
    begins = start.startswith(("<|channel|>", "<|start|>assistant<|channel|>"))
    return CHANNEL.findall(start) if begins else []


def _final(channels: Iterable[tuple[str, str]]) -> str:
    return "".join(text for name, text in channels if name == "final")


def _parts(content: Any) -> tuple[str, str]:
    """(thought, text) of a content that is a list of parts, as Mistral writes it; a text is no thought."""
    if not isinstance(content, list):
        return "", content if isinstance(content, str) else ""
    thought, text = list[str](), list[str]()
    for part in content:
        (thought if _is_thought(part) else text).append(_text_of(part))
    return "".join(thought), "".join(text)


def _is_thought(part: Any) -> bool:
    return isinstance(part, Mapping) and (
        part.get("type") in THOUGHT
        or part.get("thought") is True
        or any(part.get(name) for name in ("thinking", "reasoning", "summary"))
    )


def _text_of(value: Any) -> str:
    """The text of a field, whether it is one, a list of parts, or an object that has it."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_text_of, value))
    if isinstance(value, Mapping):
        names = ("text", "thinking", "reasoning", "summary", "content")
        return next((text for name in names if (text := _text_of(value.get(name)))), "")
    return ""


def without_reasoning(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The conversation with earlier answers only: what an assistant thought is left out of its turns."""
    return tuple(
        Message(role=m["role"], content=_answer(m["content"])) if m["role"] == "assistant" else m
        for m in messages
    )


def _answer(content: str) -> str:
    """Empty if there was only thought, and what came before a thought that was cut off. Tags around an answer
    that followed a thought go with it."""
    said = content.strip()
    if channels := _channels(content):
        content = _final(channels)
    rest = BLOCKS.sub("", content)
    for _, closing in TAGS:
        rest = rest.rpartition(closing)[2]  # what is closed here was opened in the chat template
    for opening, _ in TAGS:
        rest = rest.partition(opening)[0]
    rest = rest.strip()
    for opening, closing in (*AROUND_AN_ANSWER, *OF_OUR_MODELS):
        if rest != said and rest.startswith(opening) and rest.endswith(closing):
            return rest.removeprefix(opening).removesuffix(closing).strip()
    return rest
