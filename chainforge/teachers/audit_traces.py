"""Are traces all that the answers of a journal say, and no more?"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from chainforge.errors import ChainForgeError
from chainforge.hookspecs import ApiTeacher
from chainforge.jsonl import read_records
from chainforge.outputs import sha256_of
from chainforge.records import Trace
from chainforge.teachers.audit import Audit
from chainforge.teachers.line import Record
from chainforge.teachers.question import asked_of
from chainforge.teachers.traces import trace

Said = tuple[str, str, str, str]
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, RecursionError)  # JSON that was changed


def trace_problems(audit: Audit, path: Path, teacher_of: Callable[[Record], ApiTeacher]) -> Iterator[str]:
    """What is wrong with the traces in `path`; `audit` has read their journal.

    Two prompts with the same text are one question: their traces have one answer, by the id of either.
    """
    try:
        rows = read_records(path, Trace)
    except ChainForgeError as error:
        yield error.problem
        return
    was_written = sha256_when_written(path)
    whole = was_written is not None and was_written == sha256_of(path)
    if was_written is not None and not whole:
        yield f"{path} was changed after it was written: its sha256 is not the one in calls.json"
    said, whose = Counter[Said](), dict[Said, str]()  # how often, and to which prompt of the newest settings
    for record, run in audit.finals.values():
        try:
            found = trace(record["prompt_id"], teacher_of(run).read(record["raw"]))
        except UNREADABLE as error:
            yield f"the answer to {record['prompt_id']!r} cannot be read: {error!r}"
            continue
        said[text_of(found)] += 1
        if asked_of(run["identity"]) == asked_of(audit.run["identity"]):
            whose[text_of(found)] = found.prompt_id
    for row in not_said(rows, said):
        yield f"{path}: the trace of {row.prompt_id!r} is in no answer of the journal"
    kept = Counter(map(text_of, rows))
    lacking = [prompt_id for text, prompt_id in whose.items() if kept[text] < said[text]]
    if lacking and not whole:  # if it is whole, those were not asked for, or came later
        yield f"{path}: {len(lacking):,} answers of the journal are in no trace, the first of {lacking[0]!r}"


def not_said(rows: Iterable[Trace], said: Counter[Said]) -> Iterator[Trace]:
    """Traces of a prompt beyond those that were said; an empty one is of a question without an answer."""
    own = Counter[tuple[str, Said]]()
    for row in rows:
        own[row.prompt_id, text_of(row)] += 1
        empty = row.finish == "error" and not row.reasoning and not row.content
        if not empty and own[row.prompt_id, text_of(row)] > said[text_of(row)]:
            yield row


def text_of(trace: Trace) -> Said:
    return trace.reasoning, trace.content, trace.finish, trace.origin


def sha256_when_written(path: Path) -> str | None:
    """What `calls.json` beside it says; None where it says nothing."""
    try:
        said = json.loads((path.parent / "calls.json").read_text(encoding="utf-8"))["traces_sha256"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return said if isinstance(said, str) else None
