"""What to do with an answer, or with the lack of one: the table of errors, as pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from chainforge.providers.calls import CallFailed, Reply
from chainforge.teachers.finishes import finish_of

Action = Literal["keep", "again", "skip", "stop"]

# How often one question may be asked again, by what went wrong. "busy" costs no try.
TRIES: Mapping[str, int] = {"failed": 6, "cut": 3, "deadline": 2, "no_reasoning": 1, "truncated": 1}
UNKNOWN = "unknown finish"
LAST = frozenset({"key", "forbidden", "balance", "model"})  # causes: asked once more, at the very end


@dataclass(frozen=True, slots=True)
class Verdict:
    """`cause` is counted, says which limit of tries applies, and names the reason to stop.

    `word` is the finish of an answer where nobody knows what it means.
    """

    action: Action
    cause: str
    answered: bool = False
    word: str = ""


def on_answer(reply: Reply, tries: Mapping[str, int], *, thinks: bool, retry_truncated: bool) -> Verdict:
    """An answer is paid for, so it is kept whatever it is; a few kinds are asked for once more.

    `thinks` is whether reasoning was asked for: elsewhere, nothing is missing where there is none.
    """
    cause = cause_of(reply, thinks)
    asks_again = cause in ("cut", "no_reasoning") or (cause == "truncated" and retry_truncated)
    action: Action = "again" if asks_again and tries.get(cause, 0) < TRIES[cause] else "keep"
    return Verdict(action, cause, answered=True, word=reply.finish if cause == UNKNOWN else "")


def cause_of(reply: Reply, thinks: bool) -> str:
    """What is wrong with an answer; "answered" if nothing is."""
    match finish_of(reply.finish):
        case "stop":
            return "answered" if reply.content and (reply.reasoning or not thinks) else "no_reasoning"
        case "length":
            return "truncated"
        case "error":  # the provider broke off
            return "cut"
        case "content_filter":
            return "content_filter"
    return UNKNOWN


def on_failure(
    failure: CallFailed | TimeoutError,
    tries: Mapping[str, int],
    *,
    its_own: bool = False,
    passed: bool = False,
) -> Verdict:
    """Refusals skip the question; the others are asked again.

    Where a refusal may be everybody's, for want of a key, a model or money, the question is asked again in
    the end. `its_own` is whether it was refused before while others are answered, `passed` whether it is told
    to wait again and again while others are.
    """
    if isinstance(failure, TimeoutError):
        return again_or_skip("deadline", tries)
    cause = refusal_of(failure)
    if cause in LAST:
        return Verdict("skip", "refused") if its_own else Verdict("again", cause)
    match failure.status:
        case 429:
            return Verdict("skip" if passed else "again", "busy")
        case None | 408 | 409 | 425:
            return again_or_skip("cut" if failure.partial else "failed", tries)
        case status if status >= 500:
            return again_or_skip("failed", tries)
    return Verdict("skip", "refused")


def refusal_of(failure: CallFailed) -> str:
    """What a refusal is for; "" where it is none that lasts."""
    match failure.status:
        case 401:
            return "key"
        case 403:
            return "forbidden"
        case 402:
            return "balance"
        case 404:
            return "model"
        case 400 if "model" in str(failure).casefold() and "exist" in str(failure).casefold():
            return "model"
        case None | 408 | 409 | 425 | 429:
            return ""
        case status:
            return "refused" if status < 500 else ""


def again_or_skip(cause: str, tries: Mapping[str, int]) -> Verdict:
    return Verdict("again" if tries.get(cause, 0) < TRIES[cause] else "skip", cause)
