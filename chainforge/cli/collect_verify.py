"""`chainforge collect verify`: is a journal whole, are the traces its own, is there a key anywhere?"""

import json
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import click

from chainforge.cli.collect_status import journal_of
from chainforge.cli.project import Place
from chainforge.cli.show import show
from chainforge.config.loading import Choice
from chainforge.hookspecs import ApiTeacher
from chainforge.plugins import load_plugins, make_component
from chainforge.providers.prices import Prices
from chainforge.providers.secrets import SHORTEST, USUAL
from chainforge.teachers import record
from chainforge.teachers.audit import Audit
from chainforge.teachers.audit_traces import account_beside, trace_problems
from chainforge.teachers.line import Record


@click.command("verify")
@click.argument("folder", type=Place(), required=False, metavar="[DIR]")
@click.option("--traces", type=Place(), help="Traces made of it; default: DIR/traces.jsonl.")
@click.pass_context
def verify(ctx: click.Context, folder: Path | None, traces: Path | None) -> None:
    """Check the journal in DIR (default: of the step collect_cot); exit code 1 if something is wrong.

    Every line is what was written, by its checksum; every answer belongs to a call that was sent, and costs
    what its tokens cost; no question is answered twice; the traces are all that the answers say, and no more;
    no file of the folder holds the value of an environment variable that is called a key, token or secret.
    """
    folder = journal_of(folder)
    path = traces or folder / "traces.jsonl"
    audit = Audit(folder, prices_of)
    problems = [*audit.problems(), *key_problems(folder)]
    if traces or path.is_file() or "traces_sha256" in account_beside(path):
        problems += trace_problems(audit, path, teacher_of)
    for problem in problems:
        show(f"wrong: {problem}")
    if audit.without_sum:
        show(f"{audit.without_sum:,} lines have no checksum: an earlier version of ChainForge wrote them")
    if problems:
        ctx.exit(1)
    read = f" and {path}" if path.is_file() else ""
    click.echo(f"{folder}{read}: nothing wrong")


def prices_of(run: Record) -> Prices | None:
    """Those that the run wrote down; of an earlier version, those of its teacher if the table is the same."""
    if (found := record.prices_of(run)) or not run.get("price_table"):
        return found
    now = teacher_of(run).prices
    return now if now and now.table == run["price_table"] else None


def teacher_of(run: Record) -> ApiTeacher:
    """The teacher that a run line names. Raises ChainForgeError where there is none."""
    if "teacher" not in run:
        raise ValueError("nobody knows who was asked: the line of its run is missing")
    return teacher_named(json.dumps(run["teacher"], sort_keys=True))


@lru_cache
def teacher_named(choice: str) -> ApiTeacher:
    """By its plugin and settings."""
    chosen = Choice.model_validate(json.loads(choice))
    teacher: ApiTeacher = make_component(load_plugins().pick("teachers", chosen.plugin), chosen.settings)
    return teacher


def key_problems(folder: Path) -> Iterator[str]:
    """Files that hold a secret of this environment."""
    secrets = {
        name: value.encode()
        for name, value in os.environ.items()
        if (USUAL.search(name) or any(part in name.upper() for part in ("KEY", "TOKEN", "SECRET")))
        and len(value) >= SHORTEST
    }
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as lines:
            found = {name for line in lines for name, value in secrets.items() if value in line}
        for name in sorted(found):
            yield f"{file} holds the value of {name}"
