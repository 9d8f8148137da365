"""Texts made comparable: without case and layout, or as a list of words."""

import re

from chainforge.records import Prompt, plain, plain_text

UNSPACED = (
    "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Kana, Han
)
WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")


def close_up(text: str) -> str:
    """`plain`, without the white space that is not between two letters or digits: `12 + 30` as `12+30`."""
    return re.sub(r"(?<!\w) | (?!\w)", "", plain(text))


def words(text: str) -> list[str]:
    """Words and numbers without case and punctuation; where no spaces are written, each character is one."""
    return WORD.findall(text.casefold())


def ngrams(text: str, size: int) -> set[str]:
    """All runs of `size` words; none where the text is shorter."""
    found = words(text)
    return {" ".join(found[i : i + size]) for i in range(len(found) - size + 1)}


def question_texts(prompt: Prompt) -> tuple[str, ...]:
    """What is asked: every message but the system's, which all prompts of a set may share."""
    return tuple(m["content"] for m in prompt.messages if m["role"] != "system")


def plain_question(prompt: Prompt) -> str:
    """What is asked, as one plain text, closed up; of a prompt that is all system message, that."""
    return "\x1f".join(map(close_up, question_texts(prompt))) or plain_text(prompt)
