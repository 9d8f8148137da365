"""Questions that wait to be asked, the first time or again."""

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from chainforge.teachers.question import Question


@dataclass(slots=True)
class Job:
    """A question, how often it was sent already, and what went wrong so far in this run."""

    question: Question
    attempt: int = 0
    tries: Counter[str] = field(default_factory=Counter)


class Queue:
    """What is asked again comes first, once it is due; the others in their order."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._fresh = deque(jobs)
        self._again: list[tuple[float, int, Job]] = []  # a heap by the time at which they are due
        self._number = itertools.count()

    def __len__(self) -> int:
        return len(self._fresh) + len(self._again)

    def put(self, job: Job, due: float) -> None:
        """Ask it again, at that time or later."""
        heapq.heappush(self._again, (due, next(self._number), job))

    def pop(self, now: float) -> Job | None:
        """Take out the job whose turn it is; None if all wait."""
        if self._again and self._again[0][0] <= now:
            return heapq.heappop(self._again)[2]
        return self._fresh.popleft() if self._fresh else None
