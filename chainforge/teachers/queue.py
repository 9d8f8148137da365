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
    odd: bool = False  # refused in an earlier run
    tries: Counter[str] = field(default_factory=Counter)
    number: int = 0  # its newest call is the `number`-th of the run
    refused_at: int | None = None  # calls sent by then, when it was refused
    waits_since: int | None = None  # answers so far when it was last told to wait
    passed: int = 0  # times that others were answered while it waited
    landed: bool = False  # its newest call has ended, and is being written down


class Queue:
    """What is asked again comes first, once it is due; then the others in their order; then the last ones."""

    def __init__(self, jobs: Iterable[Job], last: Iterable[Job] = ()) -> None:
        self._fresh = deque(jobs)
        self._again: list[tuple[float, int, Job]] = []  # a heap by the time at which they are due
        self._last = deque(last)
        self._number = itertools.count()

    def __len__(self) -> int:
        return len(self._fresh) + len(self._again) + len(self._last)

    @property
    def only_waits(self) -> bool:
        """Whether all that is left is to be asked again later."""
        return not self._fresh and not self._last

    def put(self, job: Job, due: float) -> None:
        """Ask it again, at that time or later."""
        heapq.heappush(self._again, (due, next(self._number), job))

    def put_last(self, job: Job) -> None:
        """Ask it again when nothing else is left to ask, and nothing in flight."""
        self._last.append(job)

    def pop(self, now: float, *, idle: bool = False, far: bool = False) -> Job | None:
        """Take out the job whose turn it is; None if all wait.

        `idle` is that nothing is in flight; with `far`, it is one from the end of the others.
        """
        if self._again and self._again[0][0] <= now:
            return heapq.heappop(self._again)[2]
        if idle and not self._fresh:
            self._fresh, self._last = self._last, deque()
        if not self._fresh:
            return None
        return self._fresh.pop() if far else self._fresh.popleft()
