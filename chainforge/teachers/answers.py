"""From questions to a journal that answers them: the one way in, for `dvc repro` and the command line."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from chainforge.config.collector import CollectorSettings
from chainforge.errors import ChainForgeError
from chainforge.hookspecs import ApiTeacher
from chainforge.original import original_root
from chainforge.providers.secrets import refuse_keys
from chainforge.run.progress import say
from chainforge.run.stopping import Stopping
from chainforge.teachers import record
from chainforge.teachers.agenda import agenda
from chainforge.teachers.collector import Collector
from chainforge.teachers.journal import Journal, size_of
from chainforge.teachers.paid import Paid, final_answers
from chainforge.teachers.question import Question
from chainforge.teachers.reserve import reserve_for
from chainforge.teachers.stops import MOST_ODD, unknown_finish
from chainforge.teachers.traces import unknown_finishes
from chainforge.teachers.usable import describe_unused, read_answers

COPIED_AT_ONCE = 500  # answers of another journal, of which there may be more than memory holds
Watch = Callable[[Collector], None]
WITHOUT_THOUGHT = "this teacher is not asked to think: the step filter drops every answer without reasoning"


def answer_all(
    teacher: ApiTeacher,
    questions: Sequence[Question],
    folder: Path,
    settings: CollectorSettings,
    *,
    about: Mapping[str, Any],
    retry_truncated: bool = False,
    for_examples: bool = True,
    watch: Watch = lambda _: None,
    base_s: float = 1.0,
) -> Paid:
    """Ask what the journal in `folder` does not answer yet, and return what it holds then.

    `about` is the teacher's plugin and settings, for the record; `for_examples`, whether somebody is to learn
    from the answers, and the journal is for these questions alone. Raises CollectionStopped where not all
    could be asked, and ChainForgeError where nobody said what it may cost.
    """
    refuse_keys(about)
    check_budget(teacher, settings)
    if for_examples and not teacher.thinks:
        say(WITHOUT_THOUGHT)
    size, before = size_of(folder), read_answers(folder, teacher, questions)
    check_finishes(teacher, questions, folder, before)
    left = agenda(questions, before, settings)
    for sentence in describe_unused(folder, before, teacher, questions) if left and for_examples else ():
        say(sentence)
    if left and not settings.reuse:
        asyncio.run(open_once(teacher))
    stopping = Stopping()
    reserve = reserve_for(min(len(left), settings.concurrency), teacher.max_tokens)
    with Journal(folder, reserve) as journal, stopping.listening(twice=True):
        paid = before if size_of(folder) == size else read_answers(folder, teacher, questions)

        async def ask() -> None:
            if agenda(questions, paid, settings):
                await journal.write(record.run(about, teacher.identity, teacher.prices))
            for reused in settings.reuse:
                await take_over(Path(reused), teacher, questions, paid, journal)
            collector = Collector(
                teacher,
                journal,
                paid,
                settings,
                stopping=stopping,
                retry_truncated=retry_truncated,
                watch=watch,
                base_s=base_s,
            )
            await collector.collect(questions)

        asyncio.run(ask())
    if words := check_finishes(teacher, questions, folder, after := read_answers(folder, teacher, questions)):
        odd = unknown_finish(words, f"{len(after.finals):,}")
        say(f"{odd.problem}: they are no training data unless teacher.finishes says what the words mean")
    return after


def journal_folder(step: str) -> Path:
    """Outside of DVC's outputs, which it deletes before a step runs: these answers were paid for."""
    return original_root() / "collected" / step


async def open_once(teacher: ApiTeacher) -> None:
    """Raise ChainForgeError where the teacher cannot be asked, for want of a key: nothing is written yet."""
    async with teacher.client(connections=1):
        pass


def check_finishes(
    teacher: ApiTeacher, questions: Sequence[Question], folder: Path, paid: Paid
) -> Counter[str]:
    """The words with which answers ended and that nobody knows. Raises CollectionStopped if they pile up."""
    answered = {question.fingerprint for question in questions} & paid.finals.keys()
    words = unknown_finishes(teacher, folder, paid, answered)
    if words.total() > max(MOST_ODD, len(answered) / 5) or words.total() > len(answered) / 2:
        raise unknown_finish(words, f"{len(answered):,}")
    return words


def check_budget(teacher: ApiTeacher, settings: CollectorSettings) -> None:
    """Raise ChainForgeError unless it is clear what the answers may cost."""
    prices, cap = teacher.prices, settings.budget_usd
    if cap == "none" or (prices and prices.most((), 1) == 0):
        return
    if prices is None:
        raise ChainForgeError(
            "what this teacher costs is not known, so no budget can be kept",
            "set teacher.usd_per_million: {hit: …, miss: …, output: …}, or collector.budget_usd: none",
        )
    if cap is None:
        raise ChainForgeError(
            "this teacher costs money, and nothing says how much may be spent",
            "set collector.budget_usd (--budget-usd); chainforge collect --dry-run says what to expect",
        )


async def take_over(
    folder: Path, teacher: ApiTeacher, questions: Sequence[Question], paid: Paid, journal: Journal
) -> None:
    """Copy answers of another journal into this one; they were paid for there."""
    wanted = {q.fingerprint: q for q in questions if q.fingerprint not in paid.finals}
    if not wanted:
        return  # the folder may be gone or broken
    other = read_answers(folder, teacher, wanted.values())
    if other.run is None:
        raise ChainForgeError(f"there is no journal in {folder}", "correct collector.reuse (--reuse)")
    found = [key for key in wanted if key in other.finals]
    answers = zip(found, final_answers(folder, other, iter(found)), strict=True)
    while some := list(islice(answers, COPIED_AT_ONCE)):
        copies = (
            {**answer, **record.about(wanted[key], 0), "cost_usd": "0", "reused": True}
            | {"max_tokens": other.cut.get(other.older.get(key, key), answer.get("max_tokens"))}
            for key, answer in some
        )
        await asyncio.gather(*map(journal.write, copies))
    paid.finals |= dict.fromkeys(found, -1)  # read again, with their places, once all is answered
    say(f"{len(found):,} answers taken from {folder}")
