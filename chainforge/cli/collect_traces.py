"""`chainforge collect traces`: the traces of a journal, finished or not."""

from pathlib import Path

import click

from chainforge.cli.collect_status import journal_of
from chainforge.cli.collect_verify import teacher_of
from chainforge.cli.project import Place
from chainforge.cli.show import show
from chainforge.errors import ChainForgeError
from chainforge.jsonl import write_records
from chainforge.outputs import sha256_of, write_json
from chainforge.teachers.account import account_of, calls_json
from chainforge.teachers.paid import read_paid
from chainforge.teachers.traces import answered_questions, traces_in


@click.command("traces")
@click.argument("folder", type=Place(), required=False, metavar="[DIR]")
@click.option("--output", type=Place(), help="Where to; default: DIR/traces.jsonl, and calls.json beside it.")
def traces(folder: Path | None, output: Path | None) -> None:
    """Write the traces that the journal in DIR (default: of the step collect_cot) has by now.

    Nobody is asked, no key is needed, and a collection may be under way. The answers under the journal's
    newest settings are written, in the order in which they were first asked for; questions without one are
    left out.
    """
    folder = journal_of(folder)
    paid = read_paid(folder)
    if paid.run is None:
        raise ChainForgeError(f"nothing was asked yet in {folder}", "run chainforge collect first")
    teacher = teacher_of(paid.run)
    found = answered_questions(folder, paid)
    path = output or folder / "traces.jsonl"
    write_records(path, traces_in(teacher, found, folder, paid))
    if output is None:
        account = account_of(folder, set(found.values()))
        told = calls_json(account, paid.run["teacher"]["plugin"], dict(teacher.identity))
        write_json(folder / "calls.json", told | {"traces_sha256": sha256_of(path)})
    left = len(paid.sent.keys() - paid.finals.keys())
    without = f"; {left:,} questions have no answer yet" if left else ""
    show(f"{len(found):,} traces: {path}{without}")
