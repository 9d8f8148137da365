"""What a journal says, as traces and as an account: pure functions of it, the same bytes every time."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from chainforge.calls import Reply
from chainforge.hookspecs import ApiTeacher
from chainforge.records import Trace
from chainforge.teachers.finishes import finish_of
from chainforge.teachers.paid import Paid, final_answers
from chainforge.teachers.question import Question


def traces_of(
    teacher: ApiTeacher, questions: Sequence[Question], folder: Path, paid: Paid
) -> Iterator[Trace]:
    """One trace per question, in their order; one without an answer has finish "error"."""
    known = (q.fingerprint for q in questions if q.fingerprint in paid.finals)
    answers = final_answers(folder, paid, known)
    for question in questions:
        if question.fingerprint in paid.finals:
            yield trace(question.prompt_id, teacher.read(next(answers)["raw"]))
        else:
            yield Trace(question.prompt_id, "", "", "error", str(teacher.identity.get("model", "unknown")))


def trace(prompt_id: str, reply: Reply) -> Trace:
    """A finish that nobody knows is an error: never training data."""
    finish = finish_of(reply.finish) or "error"
    return Trace(prompt_id, reply.reasoning, reply.content, finish, reply.model)


def unknown_finishes(teacher: ApiTeacher, folder: Path, paid: Paid, asked: Collection[str]) -> Counter[str]:
    """The words with which answers ended and that nobody knows, as the teacher is set now."""
    odd = sorted(paid.unknown.intersection(asked))
    answers = final_answers(folder, paid, iter(odd)) if odd else ()
    said = (teacher.read(answer["raw"]).finish for answer in answers)
    return Counter(word for word in said if finish_of(word) is None)
