"""`chainforge collect verify`: is a journal whole, are the traces its own, is there a key anywhere?"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from chainforge.cli.collect_status import journal_of
from chainforge.cli.project import Place
from chainforge.cli.show import show
from chainforge.config.loading import Choice
from chainforge.errors import ChainForgeError
from chainforge.hookspecs import ApiTeacher
from chainforge.jsonl import read_records
from chainforge.plugins import load_plugins, made
from chainforge.records import Trace
from chainforge.secrets import SHORTEST
from chainforge.teachers.journal import read_journal
from chainforge.teachers.traces import trace


@click.command("verify")
@click.argument("folder", type=Place(), required=False, metavar="[DIR]")
@click.option("--traces", type=Place(), help="Traces made of it; default: DIR/traces.jsonl.")
@click.pass_context
def verify(ctx: click.Context, folder: Path | None, traces: Path | None) -> None:
    """Check the journal in DIR (default: of the step collect_cot); exit code 1 if something is wrong.

    Every line is read; every answer belongs to a call that was sent, and no question is answered twice; the
    traces are what the answers say; no file of the folder holds the value of an environment variable that is
    called a key, token or secret.
    """
    folder = journal_of(folder)
    path = traces or folder / "traces.jsonl"
    problems = [*journal_problems(folder), *key_problems(folder)]
    if path.is_file():
        problems += trace_problems(folder, path)
    for problem in problems:
        show(f"wrong: {problem}")
    if problems:
        ctx.exit(1)
    read = f" and {path}" if path.is_file() else ""
    click.echo(f"{folder}{read}: nothing wrong")


def journal_problems(folder: Path) -> Iterator[str]:
    """What contradicts itself in the journal."""
    sent: set[tuple[str, int]] = set()
    final: set[str] = set()
    for _, record in read_journal(folder):
        if record["kind"] == "run":
            continue
        call = (record["fingerprint"], record["attempt"])
        name = f"prompt {record['prompt_id']!r}, sample {record['sample']}, attempt {record['attempt']}"
        if record["kind"] == "sent":
            if call in sent:
                yield f"{name}: sent twice"
            sent.add(call)
        elif call not in sent and not record.get("reused"):
            yield f"{name}: ended, but was never sent"
        if record["kind"] == "answer" and record["final"]:
            if call[0] in final:
                yield f"{name}: answered twice"
            final.add(call[0])


def trace_problems(folder: Path, path: Path) -> Iterator[str]:
    """Traces that no answer says. Those that failed have none."""
    said: Counter[Trace] = Counter()
    teacher: ApiTeacher | None = None
    for _, record in read_journal(folder):
        if record["kind"] == "run":
            teacher = teacher_of(record["teacher"])
        elif record["kind"] == "answer" and record["final"]:
            if teacher is None:
                raise ChainForgeError(f"{folder}: an answer before any run", "the first line is missing")
            said[trace(record["prompt_id"], teacher.read(record["raw"]))] += 1
    for kept in read_records(path, Trace):
        if kept.finish == "error" and not kept.reasoning and not kept.content:
            continue
        if not said[kept]:
            yield f"{path}: the trace of {kept.prompt_id!r} is in no answer of the journal"
        said[kept] -= 1


def teacher_of(choice: dict[str, object]) -> ApiTeacher:
    """The teacher that a run line names."""
    chosen = Choice.model_validate(choice)
    entry = load_plugins().pick("teachers", chosen.plugin)
    teacher: ApiTeacher = made(entry, chosen.settings)
    return teacher


def key_problems(folder: Path) -> Iterator[str]:
    """Files that hold a secret of this environment."""
    secrets = {
        name: value.encode()
        for name, value in os.environ.items()
        if any(part in name.upper() for part in ("KEY", "TOKEN", "SECRET")) and len(value) >= SHORTEST
    }
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as lines:
            found = {name for line in lines for name, value in secrets.items() if value in line}
        for name in sorted(found):
            yield f"{file} holds the value of {name}"
