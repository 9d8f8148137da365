r"""Which part of a text is its answer: the last box, what follows the last "answer is", or all of it.

A box is `\boxed{…}`. Other marks: `answer is`, `answer:`, `Answer` above a line, `correct option is`, a last
line that begins with `####`, and the one number in bold.
"""

import re
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from chainforge.answer.notation import BOLD, plain_notation, tidy

BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
HIDDEN = re.compile(r"\\[hv]?phantom|<!--|\\color\s*\{white\}")  # nobody sees it
BEFORE_A_BOX = re.compile(
    r"(?:[-\u2212\u2013+±∓√<>≤≥≠≈~^/*]|\\(?:pm|mp|neg|sqrt|approx|sim|ne|neq|lt|gt|leq?|geq?|sin|cos|tan|log|ln|frac|times|cdot)|\bnot|\bminus)[\s$({]*$"
)
MINUS = ("-", "\u2212", "\u2013", "minus")
AFTER_A_BOX = re.compile(r"[\s$)]{0,3}(?:\\?%|\^\S+|\\pi|π|!|(?:hundred|thousand|[mbtr]+illion|dozen)\b)")
ANSWER = re.compile(
    r"(?:\b(?:answer|ans|solution)(?:\s(?:to|for|of)\b[^.\n:=]{0,80}?)?"
    r"|\b(?:correct|right|best)\s(?:answer|option|choice|one))"
    r"(?:\s?(?:\b(?:is|are|equals|(?:would|must|should|will|has to)\sbe)\b|[:=]|\n))+"
    r"(?:[\s:=]|(?:therefore|thus|then|hence|so|simply|just|indeed|clearly|now|exactly)\b,?)*"
    r"(?!\s?(?:right|correct|confirmed|verified|checked)\b)",
    re.IGNORECASE,
)
HASHES = re.compile(r"####\s?([^\n]+)$")
ENDS = re.compile(r"\n|(?<=[^\W\d]{3})[.!?](?=\s|$)|(?<=[\d)\]}%*°$π!])[.!?](?=\s[A-Z(\\]|\s?$)")
EXPLAINS = re.compile(
    r",?\s(?:since|because|as|for|so|which|where|given|when|and\snot|rather\sthan|instead\sof)\b(?!\sor\b)"
    r"|,\s(?:not|meaning|i\.e\.)\b|\s\((?=[^\W\d]{2})",
    re.IGNORECASE,
)
TAKES_BACK = re.compile(
    r"(?:^|[.!?\n]\s?)(?:or|no|wait|actually|maybe|perhaps|alternatively|sorry|correction|hmm|but|rather)\b"
    r"[^.\n]{0,80}\d",
    re.IGNORECASE,
)


def meant(summary: str) -> str:
    """The part of a text that is its answer, in plain notation; empty if it has none that can be trusted."""
    if HIDDEN.search(summary):
        return ""
    if box := last_box(summary):
        return "" if TAKES_BACK.search(plain_notation(box.after)) else box.content(plain_notation)
    text = plain_notation(summary)
    if (clause := marked_clause(text)) is not None:
        return clause
    bold = {plain_notation(found[1] or found[2]) for found in BOLD.finditer(summary)}
    numbers = {part for part in bold if re.match(r"[-+$€£¥₹.]?\s?[\d.$]", part)}
    return numbers.pop() if len(numbers) == 1 else text


def marked_answer(summary: str) -> str:
    """The part of a text that is its answer, as it was written; empty if it has none that can be trusted."""
    if HIDDEN.search(summary):
        return ""
    if box := last_box(summary):
        return "" if TAKES_BACK.search(plain_notation(box.after)) else box.content(str.strip)
    text = tidy(BOLD.sub(lambda found: found[1] or found[2], summary))
    clause = marked_clause(text)
    return text if clause is None else clause


def marked_clause(text: str) -> str | None:
    """What follows the last "answer is" or "####"; empty if it is taken back, None without such a mark."""
    if marks := last(ANSWER, text):
        clause, after = cut(text[marks.end() :])
        return "" if TAKES_BACK.search(after) else clause
    hashes = HASHES.search(text)
    return hashes[1] if hashes else None


class Box(NamedTuple):
    """The last box of a text, with what stands before and behind it that makes its number another."""

    before: str
    inside: str
    behind: str
    after: str  # the text after it

    def content(self, read: Callable[[str], str]) -> str:
        """What it holds, a minus before it and a % behind; nothing where another sign stands before it."""
        inside = read(self.inside)
        if self.before:
            inside = f"-{inside}" if self.before in MINUS else ""
        return inside + read(self.behind) if inside else inside


def last_box(summary: str) -> Box | None:
    """The last box; an empty one if it is never closed."""
    box = last(BOX, summary)
    if box is None:
        return None
    end = closing(summary, box.end())
    if end < 0:
        return Box("", "", "", "")
    before = BEFORE_A_BOX.search(summary[max(0, box.start() - 16) : box.start()])
    behind = AFTER_A_BOX.match(summary, end + 1)
    return Box(
        before[0].strip(" $") if before else "",
        summary[box.end() : end],
        behind[0] if behind else "",
        summary[end + 1 :],
    )


def boxed(text: str) -> str:
    r"""What the last `\boxed{…}` holds, nothing if it is never closed; the whole text if there is none."""
    box = last(BOX, text)
    if box is None:
        return text
    return text[box.end() : max(closing(text, box.end()), box.end())]


def closing(text: str, start: int) -> int:
    """Where the brace closes that was opened before `start`; -1 if it never does."""
    depth = 1
    for brace in re.compile(r"\\?[{}]").finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.start()
    return -1


def cut(text: str) -> tuple[str, str]:
    """The clause at the start of a text, and what comes after its sentence."""
    end = ENDS.search(text)
    sentence, after = (text[: end.start()], text[end.start() :]) if end else (text, "")
    explains = EXPLAINS.search(sentence)
    return (sentence[: explains.start()] if explains else sentence).strip(), after


def last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last match."""
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)
