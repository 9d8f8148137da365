"""What to do with an answer, or with the lack of one: the table of errors, as pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from chainforge.calls import CallFailed, Reply

Action = Literal["keep", "again", "skip", "stop"]

# How often one question may be asked again, by what went wrong. "busy" costs no try.
TRIES: Mapping[str, int] = {"failed": 6, "cut": 3, "deadline": 2, "no_reasoning": 1, "truncated": 1}
OVERLOADED = "insufficient_system_resource"
USABLE = ("stop", "length", "content_filter")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`cause` is counted, says which limit of tries applies, and names the reason to stop."""

    action: Action
    cause: str


def on_answer(reply: Reply, tries: Mapping[str, int], *, retry_truncated: bool) -> Verdict:
    """An answer is paid for, so it is kept whatever it is; a few kinds are asked for once more."""
    if reply.finish == OVERLOADED:
        return again_or("keep", "cut", tries)
    if reply.finish == "length":
        return again_or("keep", "truncated", tries) if retry_truncated else Verdict("keep", "truncated")
    if reply.finish == "content_filter" or reply.finish not in USABLE:
        return Verdict("keep", reply.finish)
    if not reply.reasoning or not reply.content:
        return again_or("keep", "no_reasoning", tries)
    return Verdict("keep", "answered")


def on_failure(failure: CallFailed | TimeoutError, tries: Mapping[str, int]) -> Verdict:
    """Refusals that will not pass stop the run or skip the question; the others are asked again."""
    if isinstance(failure, TimeoutError):
        return again_or("skip", "deadline", tries)
    match failure.status:
        case 401 | 403:
            return Verdict("stop", "key")
        case 402:
            return Verdict("stop", "balance")
        case 404:
            return Verdict("stop", "model")
        case 400 if "model" in str(failure).casefold() and "exist" in str(failure).casefold():
            return Verdict("stop", "model")
        case 429:
            return Verdict("again", "busy")
        case None | 408 | 409:
            return again_or("skip", "cut" if failure.partial else "failed", tries)
        case status if status >= 500:
            return again_or("skip", "failed", tries)
    return Verdict("skip", "refused")


def again_or(otherwise: Action, cause: str, tries: Mapping[str, int]) -> Verdict:
    return Verdict("again" if tries.get(cause, 0) < TRIES[cause] else otherwise, cause)
