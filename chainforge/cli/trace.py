"""`chainforge trace`: one problem's way through the run."""

import shutil
from typing import TYPE_CHECKING

import click

from chainforge.cli.project import ProjectCommand
from chainforge.cli.show import as_json_option, show, show_json
from chainforge.errors import ChainForgeError

if TYPE_CHECKING:
    from chainforge.completions.problems import Problem

SHOWN = 20  # problems in a list


@click.command(cls=ProjectCommand)
@click.argument("prompt_id", metavar="ID", required=False)
@click.option("--find", metavar="TEXT", help="Problems in whose text this stands; the only one is traced.")
@click.option("--full", is_flag=True, help="Every completion, and texts whole.")
@as_json_option
def trace(prompt_id: str | None, find: str | None, full: bool, as_json: bool) -> None:
    """Print what happened to one problem, from its file of prompts to every checkpoint's answers.

    ID is a prompt's id, or a beginning or a part of it that no other id has; the report has ids beside its
    samples. Everything comes from the files of the run: the journal of a teacher, its traces, what the filter
    decided, examples, evaluations. Rollouts and rejection samples are there where runtime.keep_completions
    was true when the step ran: docs/lineage.md.
    """
    from chainforge.completions.problems import with_id, with_text

    if (prompt_id is None) == (find is None):
        raise ChainForgeError(
            "trace needs either an id or --find TEXT",
            'chainforge trace ID, or: chainforge trace --find "12 + 7"',
        )
    found = with_id(prompt_id) if prompt_id is not None else with_text(find or "")
    sought = f"that {prompt_id!r} names" if prompt_id is not None else f"with {find!r} in its text"
    if not found:
        raise ChainForgeError(
            f"there is no problem {sought}", "ids are in data/prompts/; --find TEXT looks for what is asked"
        )
    if len(found) == 1:
        ((name, problems),) = found.items()
        print_trace(name, problems, full=full, as_json=as_json)
    elif find is None:
        ids = ", ".join([*list(found)[:SHOWN], *(["…"] if len(found) > SHOWN else [])])
        raise ChainForgeError(f"there are {len(found):,} problems {sought}", f"name one of them: {ids}")
    elif as_json:
        show_json({"found": [{"prompt_id": name, "question": question(its)} for name, its in found.items()]})
    else:
        for name, its in list(found.items())[:SHOWN]:
            show(f"{name}\n    {' '.join(question(its).split()):.90}")
        rest = f", the first {SHOWN} of them here" if len(found) > SHOWN else ""
        show(f"{len(found):,} problems{rest}. Next: chainforge trace ID")


def print_trace(name: str, problems: "list[Problem]", *, full: bool, as_json: bool) -> None:
    """One problem, for a person or a program."""
    from chainforge.trace.gather import gather
    from chainforge.trace.text import as_text

    facts = gather(name, problems)
    if as_json:
        return show_json(facts)
    width = min(100, max(40, shutil.get_terminal_size((100, 24)).columns))
    show(as_text(facts, width=width, full=full))


def question(problems: "list[Problem]") -> str:
    """What the first of them asks."""
    return str(problems[0].prompt.messages[-1]["content"])
