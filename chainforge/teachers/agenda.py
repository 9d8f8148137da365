"""What a run asks first, what last, and what not at all."""

from collections.abc import Sequence
from dataclasses import dataclass

from chainforge.config.collector import CollectorSettings
from chainforge.teachers.paid import Paid
from chainforge.teachers.question import Question
from chainforge.teachers.queue import Job


@dataclass(frozen=True, slots=True)
class Agenda:
    """Of `total` different questions, `kept` have their answer and `left_out` were refused before."""

    first: list[Job]
    last: list[Job]
    total: int
    kept: int
    left_out: int

    def __len__(self) -> int:
        return len(self.first) + len(self.last)


def agenda(questions: Sequence[Question], paid: Paid, settings: CollectorSettings) -> Agenda:
    """What the provider refused before is asked last; not at all if that was for good, and it has answered
    others, unless wanted. A question that comes twice is asked once.
    """
    different = {question.fingerprint: question for question in questions}
    open_ones = [question for key, question in different.items() if key not in paid.finals]
    refused = {key for key, (cause, _) in paid.unanswered.items() if cause == "refused"}
    kept = len(different) - len(open_ones)
    gone = refused if kept and not settings.retry_refused else set()
    asked = [q for q in open_ones if q.fingerprint not in gone]
    odd = refused | paid.doubted
    first = [Job(q, paid.sent[q.fingerprint]) for q in asked if q.fingerprint not in odd]
    last = [Job(q, paid.sent[q.fingerprint], odd=True) for q in asked if q.fingerprint in odd]
    return Agenda(first, last, len(different), kept, len(open_ones) - len(asked))
