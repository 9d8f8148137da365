"""Questions that wait to be asked, the first time or again."""

import heapq
import itertools
from collections import Counter
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
    """By the time at which they are due, then first come first served."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._number = itertools.count()
        self._heap = [(0.0, next(self._number), job) for job in jobs]  # sorted, and so a heap

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, job: Job, due: float) -> None:
        """Ask it at that time, or later."""
        heapq.heappush(self._heap, (due, next(self._number), job))

    def first(self, now: float) -> Job | None:
        """The job whose turn it is; it stays in the queue."""
        return self._heap[0][2] if self._heap and self._heap[0][0] <= now else None

    def pop(self) -> Job:
        """Take that job out."""
        return heapq.heappop(self._heap)[2]
