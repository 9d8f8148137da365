"""Figures of a collection under way, for whoever watches it."""

import time
from collections import Counter, deque
from dataclasses import dataclass, field

from chainforge.teachers.verdict import Verdict

RATE_OVER_S = 60.0
JUDGED = 50  # answers that are looked at: the rest will be like them


@dataclass(slots=True)
class Tally:
    """`done` of `total` questions have their answer, `kept` of them from before. Monotonic seconds.

    `left_out` were refused before, and are not asked again.
    """

    total: int
    kept: int = 0
    left_out: int = 0
    answers: int = 0
    silent: int = 0  # of the first JUDGED answers, those without reasoning
    unknown: Counter[str] = field(default_factory=Counter)  # of the same, finishes that nobody knows
    requests: int = 0
    skipped: int = 0
    causes: Counter[str] = field(default_factory=Counter)  # of every call that ended
    retries: Counter[str] = field(default_factory=Counter)  # of those, asked again
    finished: int = 0
    problem: str = ""  # the newest
    waiting_for: str = ""  # the budget, the hour, …; empty while nothing is in the way
    started: float = field(default_factory=time.monotonic)
    characters: int = 0  # streamed so far, of calls in flight and past
    _recent: deque[tuple[float, int, int]] = field(default_factory=deque)

    @property
    def done(self) -> int:
        """Questions that have their answer."""
        return self.kept + self.finished

    def count(self, verdict: Verdict, tokens: int, problem: str = "") -> None:
        """One more call is over: an answer has output tokens, anything else a problem."""
        self.problem = problem or self.problem
        self.causes[verdict.cause] += 1
        self.retries[verdict.cause] += verdict.action == "again"
        self.skipped += verdict.action == "skip"
        self.finished += verdict.action == "keep"
        self.answers += verdict.answered
        self.silent += verdict.cause == "no_reasoning" and self.answers <= JUDGED
        if verdict.word and self.answers <= JUDGED:
            self.unknown[verdict.word] += 1
        if verdict.answered:
            self._recent.append((time.monotonic(), tokens, int(verdict.action == "keep")))

    def count_text(self, characters: int) -> None:
        """More characters of a streamed answer."""
        self.characters += characters

    def rates(self) -> tuple[float, float]:
        """(output tokens, questions) per second, over the last minute."""
        now = time.monotonic()
        while self._recent and now - self._recent[0][0] > RATE_OVER_S:
            self._recent.popleft()
        over = max(min(now - self.started, RATE_OVER_S), 1e-3)
        return sum(t for _, t, _ in self._recent) / over, sum(f for *_, f in self._recent) / over

    def eta_s(self) -> float | None:
        """Seconds until the last answer at the pace of the last minute; None before there is one."""
        pace = self.rates()[1]
        return (self.total - self.done - self.skipped - self.left_out) / pace if pace else None
