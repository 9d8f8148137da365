"""Why a collection ends before its time, and what to do about it."""

from collections import Counter
from decimal import Decimal

from chainforge.errors import ChainForgeError
from chainforge.teachers.budget import Budget
from chainforge.teachers.refusals import FIRST, Whom
from chainforge.teachers.tally import JUDGED, Tally

PATIENCE_S = 900.0
UNREACHED_S = 30.0
MOST_ODD = JUDGED // 5  # of the first answers
AGAIN = "then run the same command again: no answer is asked or paid for twice"

STOPS: dict[str, tuple[int, str]] = {  # cause -> exit code, what to do
    "key": (3, "set the right key in the environment"),
    "forbidden": (3, "set a key in the environment that may ask this model"),
    "balance": (4, "top up the account"),
    "model": (5, "correct the teacher's model or base_url"),
    "budget": (6, "raise collector.budget_usd (--budget-usd), or lower the teacher's max_tokens"),
    "refused": (7, "correct the teacher's settings"),
    "no_reasoning": (8, "turn the teacher's thinking on, or choose a model that reasons"),
    "finish": (
        10,
        "say what the words mean: teacher.finishes: {WORD: stop} (or length, content_filter, error)",
    ),
    "outage": (9, "check base_url and the network, or wait for the provider"),
    "signal": (130, "nothing to mend"),
}


class CollectionStopped(ChainForgeError):
    """Every answer is in the journal; the same command goes on. `exit_code` says what was in the way."""

    def __init__(self, cause: str, problem: str) -> None:
        code, fix = STOPS[cause]
        super().__init__(problem, f"{fix}, {AGAIN}")
        self.exit_code = code


def hopeless(tally: Tally, in_flight: int) -> CollectionStopped | None:
    """Whether what came so far says that the rest is no better; what is in flight may still be answered."""
    first = FIRST if tally.kept else min(FIRST, tally.total)  # the last of many may be a hard one
    if not tally.answers and not in_flight and tally.skipped - tally.causes["refused"] >= first:
        return CollectionStopped("outage", f"the first {first} questions all failed: {tally.problem}")
    judged = min(tally.answers, JUDGED)
    if tally.silent > MOST_ODD:
        without = f"{tally.silent} of the first {judged} answers"
        return CollectionStopped("no_reasoning", f"{without} came without reasoning or without an answer")
    if tally.unknown.total() > MOST_ODD:
        return unknown_finish(tally.unknown, f"the first {judged}")
    return None


def silence(tally: Tally, silent_s: float, deadline_s: float) -> CollectionStopped | None:
    """Whether there has been no answer for too long, while calls fail."""
    if silent_s <= max(PATIENCE_S, deadline_s):
        return None
    problem = f"no answer for {silent_s:.0f} s, in spite of asking again: {tally.problem}"
    return CollectionStopped("outage", problem)


def unreached(tally: Tally, silent_s: float) -> CollectionStopped | None:
    """The same, while there has never been a connection: a mistake in the address, or no network."""
    if not tally.problem or silent_s <= UNREACHED_S:
        return None
    return CollectionStopped("outage", f"nobody could be reached for {silent_s:.0f} s: {tally.problem}")


def refused(whom: Whom, tally: Tally) -> CollectionStopped:
    """It is not about one question or another."""
    if whom.cause != "refused":
        return CollectionStopped(whom.cause, f"the provider says: {whom.problem}")
    which = f"the last {whom.questions}" if tally.kept or tally.answers else f"the first {whom.questions}"
    return CollectionStopped("refused", f"{which} questions were all refused: {whom.problem}")


def fruitless(tally: Tally) -> CollectionStopped | None:
    """A run that ends without one answer, now or before, is not done."""
    if tally.answers or tally.kept or not tally.skipped:
        return None
    cause, what = ("refused", "were all refused") if tally.causes["refused"] else ("outage", "all failed")
    return CollectionStopped(cause, f"the first {tally.skipped} questions {what}: {tally.problem}")


def unknown_finish(words: Counter[str], of: str) -> CollectionStopped:
    """Answers that ended with a word that nobody knows pile up: none of them would be trained on."""
    said = ", ".join(f"{word!r:.40} {count:,}" for word, count in words.most_common(5))
    problem = f"{words.total():,} of {of} answers ended with a finish reason that nobody knows: {said}"
    return CollectionStopped("finish", problem)


def given_up(calls: int, most: Decimal) -> CollectionStopped:
    """A second Ctrl-C."""
    what = f"{calls} calls in flight were given up, which may be billed all the same: {most} USD at most"
    return CollectionStopped("signal", f"stopped at once: {what if calls else 'nothing was in flight'}")


def budget_reached(budget: Budget, most: Decimal) -> CollectionStopped:
    """The next call could pass the cap."""
    possibly = f", {budget.lost} USD possibly, for calls without an answer" if budget.lost else ""
    return CollectionStopped(
        "budget",
        f"the budget of {budget.cap} USD is used up: {budget.spent} USD spent{possibly}; "
        f"the next call can cost {most} USD",
    )
