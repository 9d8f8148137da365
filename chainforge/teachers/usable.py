"""Which answers of a journal still answer what is asked today."""

from collections.abc import Iterable
from math import inf
from pathlib import Path

from chainforge.hookspecs import ApiTeacher
from chainforge.run.fingerprint import differences
from chainforge.teachers.paid import Paid, other_settings, read_paid
from chainforge.teachers.question import Question, asked_of, fingerprint


def read_answers(folder: Path, teacher: ApiTeacher, questions: Iterable[Question]) -> Paid:
    """The journal of a folder, with `finals` for these questions as they are asked now.

    An answer that was cut off does not count where the teacher may now write more. One that an earlier
    version of ChainForge kept under another fingerprint is found all the same.
    """
    paid = read_paid(folder)
    now = asked_of(teacher.identity)
    before = [identity for identity in paid.teachers.values() if asked_of(identity) == now]
    for question in questions:
        name = question.fingerprint
        own = {"seed": question.seed} if teacher.seeded else {}
        known = [name] if name in paid.finals else []
        if not known or is_short(paid, name, teacher):
            old = (fingerprint({**i, **own}, question.messages, question.sample) for i in before)
            known += [other for other in old if other in paid.finals and other != name]
        best = next((other for other in known if not is_short(paid, other, teacher)), None)
        if best is None:
            paid.finals.pop(name, None)
        elif best != name:
            paid.finals[name], paid.older[name] = paid.finals[best], best
    return paid


def is_short(paid: Paid, name: str, teacher: ApiTeacher) -> bool:
    """Whether that answer was cut off where one of today would go on."""
    return paid.cut.get(name, inf) < teacher.max_tokens


def describe_unused(
    folder: Path, paid: Paid, teacher: ApiTeacher, questions: Iterable[Question]
) -> list[str]:
    """What lies in the journal and answers nothing that is asked now, and why, in sentences."""
    said = []
    others = other_settings(paid, teacher.identity)
    for before, count in others.values():
        what = ", ".join(
            f"{key} {old} -> {new}" for key, old, new in differences(before, asked_of(teacher.identity))
        )
        said.append(
            f"{count:,} answers in {folder} are not used: they were given under other settings ({what})"
        )
    used = {paid.older.get(q.fingerprint, q.fingerprint) for q in questions if q.fingerprint in paid.finals}
    short = sum(limit < teacher.max_tokens for limit in paid.cut.values())
    rest = len(paid.under) - sum(count for _, count in others.values()) - len(used) - short
    if short:
        said.append(f"{short:,} answers in {folder} were cut off at fewer than {teacher.max_tokens:,} tokens")
    if rest > 0:
        said.append(f"{rest:,} answers in {folder} are about other prompts, or with another instruction")
    return said


def names_of(paid: Paid, questions: Iterable[Question]) -> set[str]:
    """The fingerprints under which the journal has these questions."""
    own = {question.fingerprint for question in questions}
    return own | {paid.older[name] for name in own & paid.older.keys()}
