"""Are traces all that the answers of a journal say, and no more?"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

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
COUNTED = {"sent": "requests", "answer": "answers"}  # kinds of lines, by their name in calls.json
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
    account = account_beside(path)
    whole = account.get("traces_sha256") == sha256_of(path)
    if "traces_sha256" in account and not whole:
        yield f"{path} was changed after it was written: its sha256 is not the one in calls.json"
    counted = {kind: account.get(name) for kind, name in COUNTED.items()}
    for kind, count in counted.items():
        if isinstance(count, int) and count > audit.counts[kind]:
            yield f"{audit.folder}: {audit.counts[kind]:,} {kind} lines, of {count:,} that calls.json counts"
    is_all = all(count == audit.counts[kind] for kind, count in counted.items())
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
    for row in unsaid_traces(rows, said, once=not whole):
        yield f"{path}: the trace of {row.prompt_id!r} is in no answer of the journal"
    kept = Counter(map(text_of, rows))
    lacking = [prompt_id for text, prompt_id in whose.items() if kept[text] < said[text]]
    if lacking and (is_all or not whole):  # else those were not asked for, or came later
        yield f"{path}: {len(lacking):,} answers of the journal are in no trace, the first of {lacking[0]!r}"


def unsaid_traces(rows: Iterable[Trace], said: Counter[Said], once: bool) -> Iterator[Trace]:
    """Traces that nobody said, or that a prompt has more often; one that is empty is of a question without
    an answer. A prompt that was asked about twice has each answer twice, if not `once`."""
    own = Counter[tuple[str, Said]]()
    for row in rows:
        own[row.prompt_id, text_of(row)] += 1
        empty = row.finish == "error" and not row.reasoning and not row.content
        times = own[row.prompt_id, text_of(row)] if once else 1
        if not empty and times > said[text_of(row)]:
            yield row


def text_of(trace: Trace) -> Said:
    return trace.reasoning, trace.content, trace.finish, trace.origin


def account_beside(path: Path) -> Mapping[str, Any]:
    """What `calls.json` beside the traces says; empty where there is none."""
    try:
        said = json.loads((path.parent / "calls.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
