"""Problems that the evaluation asks too: the same text, a shared run of words, a short one in a longer."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal, Self

from chainforge.filtering.words import close_up, ngrams, plain_question, question_texts, words
from chainforge.records import Prompt

WORDING = 10  # word runs shared by more prompts of a file than this, and by half of it, are boilerplate
TELLING = 4  # words: a shorter problem without a digit is not looked for inside others


@dataclass(frozen=True, slots=True)
class Benchmarks:
    """What the evaluation asks. `size` is the length of a run in words; None compares whole texts only."""

    questions: frozenset[str] = frozenset()
    runs: frozenset[str] = frozenset()
    size: int | None = None
    lengths: Mapping[str, Set[int]] = field(default_factory=dict)  # of short problems, by their first word
    shorts: Mapping[str, Sequence[str]] = field(default_factory=dict)  # words -> the texts of just these

    @classmethod
    def of(cls, files: Iterable[Sequence[Prompt]], size: int | None) -> Self:
        """The prompts of all evaluation files. One of fewer than `size` words is looked for as a whole."""
        questions: set[str] = set()
        runs: set[str] = set()
        lengths: dict[str, set[int]] = {}
        shorts: dict[str, list[str]] = {}
        for prompts in files:
            questions.update(map(plain_question, prompts))
            runs |= telling_runs(prompts, size) if size else set()
        for question in sorted(questions) if size else ():
            if is_short(question, size or 0):
                its = words(question)
                lengths.setdefault(its[0], set()).add(len(its))
                shorts.setdefault(" ".join(its), []).append(question.strip("?!.:= "))
        return cls(frozenset(questions), frozenset(runs), size, lengths, shorts)

    def finds(self, prompt: Prompt) -> Literal["contaminated_exact", "contaminated_ngram"] | None:
        """How the evaluation asks this, if it does."""
        if plain_question(prompt) in self.questions:
            return "contaminated_exact"
        if self.size and not self.runs.isdisjoint(runs_of(prompt, self.size)):
            return "contaminated_ngram"
        return "contaminated_ngram" if self.shorts and self.holds_short(prompt) else None

    def holds_short(self, prompt: Prompt) -> bool:
        """Whether a short problem of the evaluation stands in this prompt, its signs included."""
        for text in question_texts(prompt):
            found, inside = words(text), set[str]()
            for place, word in enumerate(found):
                for length in self.lengths.get(word, ()):
                    inside.update(self.shorts.get(" ".join(found[place : place + length]), ()))
            plain = close_up(text) if inside else ""
            if any(stands_in(short, plain) for short in inside):
                return True
        return False


def is_short(question: str, size: int) -> bool:
    """Whether a question, one message, is too short for a run, and yet long enough to be told from others."""
    count = len(words(question))
    return (
        0 < count < size and "\x1f" not in question and (count >= TELLING or bool(re.search(r"\d", question)))
    )


def stands_in(short: str, text: str) -> bool:
    """Whether a text holds another as a part of its own: 12+30 does not stand in 112+30 nor in 2*12+30."""
    return bool(re.search(rf"(?<![\w+*/^-])(?<!\d[.,]){re.escape(short)}(?![\w+*/^%-]|[.,]\d)", text))


def runs_of(prompt: Prompt, size: int) -> set[str]:
    """Every run of `size` words, within one message."""
    return {run for text in question_texts(prompt) for run in ngrams(text, size)}


def telling_runs(prompts: Sequence[Prompt], size: int) -> set[str]:
    """The runs of one file, without those that most of its prompts share: a common instruction."""
    counts = Counter(run for prompt in prompts for run in runs_of(prompt, size))
    limit = max(WORDING, len(prompts) / 2)
    return {run for run, count in counts.items() if count < limit}
