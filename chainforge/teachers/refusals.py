"""Whom a provider refuses: one question, or everybody, for want of a key, a model or money."""

from typing import NamedTuple

from chainforge.teachers.queue import Job

FIRST = 5  # questions: if the first ones all fail, so will the others
IN_A_ROW = 20  # the same once there have been answers: these may just be a few odd questions
SHARE = 30  # the row is total / SHARE long, between FIRST and IN_A_ROW
LONGEST_PASSED = 6  # waits of one question while others are answered, before it is put off
QUIET_S = 90.0  # without any answer: longer than a limit per minute lasts
ACCOUNT = ("key", "balance")  # one question alone is meant only if others are answered meanwhile


class Whom(NamedTuple):
    """What everybody is refused for."""

    cause: str
    problem: str
    questions: int


class Refusals:
    """Counts different questions that are refused in a row, and decides by the answers in between.

    Calls that were sent before the first of those refusals came back are one piece of news with it; an answer
    to one of them says nothing about now. `known` is whether there was an answer of this teacher before.
    """

    def __init__(self, total: int, known: bool) -> None:
        self.known = known
        self.answers = 0
        self._first = min(FIRST, total)
        self._row_most = max(FIRST, min(IN_A_ROW, total // SHARE))
        self._sent = 0
        self._answered = -1  # number of the newest call that was answered
        self._since: int | None = None  # number of the newest call when the row of refusals began
        self._newest = ("refused", "")
        self._row = self._probes = self._stragglers = 0

    @property
    def doubtful(self) -> bool:
        """Whether a refusal may be everybody's: then questions from elsewhere tell more."""
        return self._since is not None

    @property
    def held(self) -> bool:
        """Whether no more should be sent until those in flight have ended."""
        needed = self._needed()
        return self._since is not None and (
            self._row >= needed or (self._probes >= needed and not self.known)
        )

    def note_sent(self, job: Job) -> None:
        """This question is about to be sent."""
        self._sent += 1
        self._probes += self.doubtful
        job.number = self._sent

    def note_answer(self, job: Job) -> None:
        """This question was answered."""
        if self._since is not None and self.known and job.number <= self._since:
            self._stragglers += 1
        else:
            self._forget()
        self.known = True
        self.answers += 1
        self._answered = max(self._answered, job.number)

    def its_own(self, job: Job, cause: str) -> bool:
        """Whether this question alone is refused: it was before, and others are answered."""
        if job.refused_at is None:
            return False
        return self._answered > job.refused_at if cause in ACCOUNT else self.known

    def note_refusal(self, job: Job, cause: str, problem: str) -> None:
        """This question was refused, and asking again would not help."""
        fresh = self._since is None or job.number > self._since
        if self._since is None:
            self._since = self._sent
        self._newest = (cause, problem)
        if job.refused_at is not None and not self.its_own(job, cause):
            self._row = max(self._row, self._needed())  # and nobody was answered in between
        elif job.refused_at is None and fresh and not job.odd:
            self._row += 1
        job.refused_at = self._sent

    def is_passed_over(self, job: Job, alone_for_s: float) -> bool:
        """Whether it is told to wait again and again while others are answered; to be asked at each refusal.

        `alone_for_s` is how long there has been no answer, 0 while there are other questions to ask.
        """
        if job.waits_since is not None:
            job.passed += self.answers > job.waits_since
        job.waits_since = self.answers
        often = job.tries["busy"] + 1 >= LONGEST_PASSED
        return job.passed >= LONGEST_PASSED or (often and job.passed > 0 and alone_for_s > QUIET_S)

    def everybody(self, in_flight: int) -> Whom | None:
        """What everybody is refused for, once nothing is in flight that may say otherwise."""
        if not self.held or in_flight:
            return None
        if self._stragglers:
            self._forget()
        self._probes = 0
        if not self.held:
            return None
        return Whom(*self._newest, self._row)

    def _needed(self) -> int:
        account = self._newest[0] in ACCOUNT
        if self.known:
            return FIRST if account else self._row_most
        return 1 if account else self._first

    def _forget(self) -> None:
        self._since = None
        self._row = self._probes = self._stragglers = 0
