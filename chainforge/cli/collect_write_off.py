"""`chainforge collect write-off`: the provider's bill says what calls without an answer have cost."""

import asyncio
from decimal import Decimal
from pathlib import Path

import click

from chainforge.cli.collect_status import journal_of
from chainforge.cli.project import Place
from chainforge.cli.show import show
from chainforge.errors import ChainForgeError
from chainforge.teachers import record
from chainforge.teachers.journal import Journal
from chainforge.teachers.paid import read_paid


@click.command("write-off")
@click.argument("folder", type=Place(), required=False, metavar="[DIR]")
@click.option(
    "--billed-usd",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="What the provider's bill has of it.",
)
def write_off(folder: Path | None, billed_usd: float) -> None:
    """Take what was possibly paid, in DIR (default: of the step collect_cot), off the budget.

    Calls without an answer count at the most that they can have cost. Where the provider's bill shows what
    they did cost, that is what counts from now on. No collection may be under way.
    """
    folder = journal_of(folder)
    billed = Decimal(str(billed_usd))
    with Journal(folder) as journal:
        paid = read_paid(folder)
        if billed > paid.possibly:
            raise ChainForgeError(
                f"{billed} USD is more than the {paid.possibly} USD that were possibly paid in {folder}",
                "give the part of the bill that is for calls without an answer",
            )
        if not paid.possibly:
            return show(f"{folder}: nothing was possibly paid, there is nothing to write off")
        asyncio.run(journal.write(record.written_off(billed)))
    now = read_paid(folder)
    show(f"{folder}: {paid.possibly - billed} USD written off, {now.spent} USD spent")
