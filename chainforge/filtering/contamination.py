"""Problems that the evaluation asks too: the same text, or the same run of words."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from chainforge.filtering.words import asked, ngrams, plain_question
from chainforge.records import Prompt

WORDING = 10  # prompts, and half of a file: a run of words in so many is how all of them are put


@dataclass(frozen=True, slots=True)
class Benchmarks:
    """What the evaluation asks. `size` is the length of a run in words; None compares whole texts only."""

    questions: frozenset[str] = frozenset()
    runs: frozenset[str] = frozenset()
    size: int | None = None

    @classmethod
    def of(cls, files: Iterable[Sequence[Prompt]], size: int | None) -> Self:
        """The prompts of all evaluation files. Shorter ones than `size` words have no run."""
        questions: set[str] = set()
        runs: set[str] = set()
        for prompts in files:
            questions.update(map(plain_question, prompts))
            runs |= telling_runs(prompts, size) if size else set()
        return cls(frozenset(questions), frozenset(runs), size)

    def finds(self, prompt: Prompt) -> Literal["contaminated_exact", "contaminated_ngram"] | None:
        """How the evaluation asks this, if it does."""
        if plain_question(prompt) in self.questions:
            return "contaminated_exact"
        if self.size and not self.runs.isdisjoint(runs_of(prompt, self.size)):
            return "contaminated_ngram"
        return None


def runs_of(prompt: Prompt, size: int) -> set[str]:
    """Every run of so many words, within one message."""
    return {run for text in asked(prompt) for run in ngrams(text, size)}


def telling_runs(prompts: Sequence[Prompt], size: int) -> set[str]:
    """The runs of one file, without those that most of its prompts share: a common instruction."""
    counts = Counter(run for prompt in prompts for run in runs_of(prompt, size))
    limit = max(WORDING, len(prompts) / 2)
    return {run for run, count in counts.items() if count < limit}
