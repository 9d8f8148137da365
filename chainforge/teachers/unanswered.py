"""Which questions are left without an answer, and why, for who ran the collection."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from chainforge.teachers.paid import Paid
from chainforge.teachers.question import Question

NAMED = 20  # prompts at once
REASONS = 10  # per kind


def describe_unanswered(questions: Sequence[Question], paid: Paid) -> Iterator[str]:
    """Lines: how many were refused or given up, what the provider said, and whose prompts they are."""
    refused: defaultdict[str, list[str]] = defaultdict(list)
    failed: defaultdict[str, list[str]] = defaultdict(list)
    for question in questions:
        if question.fingerprint in paid.finals or question.fingerprint not in paid.unanswered:
            continue
        cause, said = paid.unanswered[question.fingerprint]
        (refused if cause == "refused" else failed)[said].append(question.prompt_id)
    if refused:
        yield (
            f"{count(refused)} of {len(questions):,} questions were refused; they are asked again "
            "only with collector.retry_refused (--retry-refused):"
        )
        yield from list_reasons(refused)
    if failed:
        yield f"{count(failed)} of {len(questions):,} questions got no answer; the next run asks them again:"
        yield from list_reasons(failed)


def count(reasons: defaultdict[str, list[str]]) -> str:
    return f"{sum(map(len, reasons.values())):,}"


def list_reasons(reasons: defaultdict[str, list[str]]) -> Iterator[str]:
    """A line per reason, the most frequent ones first."""
    ordered = sorted(reasons.items(), key=lambda reason: (-len(reason[1]), reason[0]))
    for said, ids in ordered[:REASONS]:
        yield f"  {said:.200}: {some_of(ids)}"
    if len(ordered) > REASONS:
        yield f"  and {len(ordered) - REASONS:,} more reasons"


def some_of(ids: Sequence[str]) -> str:
    """The first of these prompts, and how many more there are."""
    more = f", and {len(ids) - NAMED:,} more" if len(ids) > NAMED else ""
    return ", ".join(ids[:NAMED]) + more
