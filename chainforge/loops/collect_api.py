"""Collect from a teacher behind an API: ask what the journal lacks, then read the journal."""

from collections.abc import Sequence
from typing import Any

from chainforge.config.collect import CollectSettings
from chainforge.config.collector import CollectorSettings
from chainforge.hookspecs import ApiTeacher
from chainforge.records import Prompt, Trace
from chainforge.run.progress import say
from chainforge.run.step import Step
from chainforge.teachers.account import account_of, calls_json
from chainforge.teachers.answers import answer_all, journal_folder
from chainforge.teachers.display import display
from chainforge.teachers.question import questions
from chainforge.teachers.traces import traces_of
from chainforge.teachers.unanswered import describe_unanswered
from chainforge.teachers.usable import names_of


def collect_api(
    teacher: ApiTeacher,
    prompts: Sequence[Prompt],
    settings: CollectSettings,
    collector: CollectorSettings,
    step: Step,
) -> tuple[list[Trace], dict[str, Any]]:
    """(traces in the order of the prompts, what was asked and paid for them)."""
    folder = journal_folder(step.name)
    asked = list(questions(teacher, prompts, settings.samples, step.seed("teacher"), settings.instruction))
    about = {"plugin": settings.teacher.plugin, **settings.teacher.settings}
    with display(step.name) as watch:
        again = settings.retry_truncated
        paid = answer_all(teacher, asked, folder, collector, about=about, retry_truncated=again, watch=watch)
    traces = list(traces_of(teacher, asked, folder, paid))
    for line in describe_unanswered(asked, paid):
        say(line)
    account = account_of(folder, names_of(paid, asked))
    return traces, calls_json(account, settings.teacher.plugin, dict(teacher.identity))
