"""What a journal says, as traces and as an account: pure functions of it, the same bytes every time."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from chainforge.hookspecs import ApiTeacher
from chainforge.providers.calls import Reply
from chainforge.records import Trace
from chainforge.teachers.finishes import finish_of
from chainforge.teachers.journal import read_journal
from chainforge.teachers.paid import Paid, final_answers
from chainforge.teachers.question import Question, asked_of


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


def answered_questions(folder: Path, paid: Paid) -> dict[tuple[str, int], str]:
    """The fingerprint by prompt id and sample of all that was answered under a journal's newest settings, in
    the order in which it was first asked; a prompt's samples stand together."""
    order: dict[str, dict[int, str]] = {}
    now = asked_of((paid.run or {}).get("identity", {}))
    own = {name for name, identity in paid.teachers.items() if asked_of(identity) == now}
    for offset, record in read_journal(folder):
        if record["kind"] not in ("sent", "answer"):
            continue
        samples = order.setdefault(record["prompt_id"], {})
        if paid.finals.get(name := record["fingerprint"]) == offset and paid.under[name] in own:
            samples[record["sample"]] = name
    return {(prompt, n): name for prompt, its in order.items() for n, name in sorted(its.items())}


def traces_in(
    teacher: ApiTeacher, found: dict[tuple[str, int], str], folder: Path, paid: Paid
) -> Iterator[Trace]:
    """The traces of these answers."""
    answers = final_answers(folder, paid, iter(found.values()))
    for (prompt_id, _), answer in zip(found, answers, strict=True):
        yield trace(prompt_id, teacher.read(answer["raw"]))


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
