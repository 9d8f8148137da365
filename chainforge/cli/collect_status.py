"""`chainforge collect status`: what a journal holds, and what it cost."""

from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chainforge.cli.project import Place
from chainforge.defuse import defuse
from chainforge.errors import ChainForgeError
from chainforge.teachers.account import Account, account_of
from chainforge.teachers.answers import journal_folder
from chainforge.teachers.journal import NAME
from chainforge.teachers.unanswered import some_of

SHOWN = 8  # reasons


@click.command("status")
@click.argument("folder", type=Place(), required=False, metavar="[DIR]")
def status(folder: Path | None) -> None:
    """What the journal in DIR (default: of the step collect_cot) holds, and what it cost.

    A collection may be under way meanwhile.
    """
    folder = journal_of(folder)
    account = account_of(folder)
    table = Table(title=Text(defuse(str(folder))), show_header=False, title_justify="left", box=None)
    table.add_column(style="dim")
    table.add_column()
    for name, value in rows(account):
        table.add_row(name, Text(defuse(value)))
    Console().print(table)


def journal_of(folder: Path | None) -> Path:
    """The folder named, or the default. Raises ChainForgeError if it has no journal."""
    folder = folder or journal_folder("collect_cot")
    if not (folder / NAME).is_file():
        raise ChainForgeError(f"there is no {NAME} in {folder}", "name one that chainforge collect wrote")
    return folder


def reasons(account: Account) -> str:
    """The most frequent ones, a line each, in the provider's own words."""
    most = sorted(account.reasons.items(), key=lambda item: -item[1][0])
    lines = [f"{count:,} x {cause}: {said:.160}" for (cause, _), (count, said) in most[:SHOWN]]
    return "\n".join([*lines, f"and {len(most) - SHOWN:,} others"] if len(most) > SHOWN else lines)


def unanswered_prompts(account: Account) -> Iterator[tuple[str, str]]:
    """The prompts that are left without an answer, those that the provider refused apart."""
    refused, failed = list[str](), list[str]()
    for name, (cause, _) in account.paid.unanswered.items():
        (refused if cause == "refused" else failed).append(account.whose[name])
    for what, ids in (("refused", refused), ("given up", failed)):
        if ids:
            yield what, f"{len(ids):,}: {some_of(ids)}"


def rows(account: Account) -> list[tuple[str, str]]:
    """What to show of it, in words."""
    paid, tokens = account.paid, account.tokens
    answered = f"{len(paid.finals):,}" + (
        f", {account.reused:,} of another journal" if account.reused else ""
    )
    money = [
        ("spent", f"{paid.spent} USD"),
        ("possibly paid", f"{paid.possibly} USD at most, for calls without an answer"),
        *([("written off", f"{paid.written_off} USD")] if paid.written_off else []),
    ]
    return [
        ("questions answered", answered),
        ("calls", f"{account.requests:,}"),
        ("how they ended", ", ".join(f"{cause} {n:,}" for cause, n in account.causes.most_common()) or "–"),
        *([("why calls failed", reasons(account))] if account.reasons else []),
        *unanswered_prompts(account),
        ("without an end", f"{len(paid.flying):,} (in flight now, or when the process was killed)"),
        (
            "tokens",
            f"{tokens['hit'] + tokens['miss']:,} in ({tokens['hit']:,} cached), {tokens['output']:,} out",
        ),
        *(money if account.price_tables else [("spent", "unknown: the teacher had no price")]),
        ("models served", ", ".join(f"{model} {n:,}" for model, n in account.models.most_common()) or "–"),
        ("reasoning found in", ", ".join(f"{s} {n:,}" for s, n in account.sources.most_common()) or "–"),
        ("prices", ", ".join(sorted(account.price_tables)) or "–"),
        ("days (UTC)", " to ".join(sorted({min(account.days), max(account.days)})) if account.days else "–"),
        *([("made by", "a mock: no real teacher")] if account.synthetic else []),
    ]
