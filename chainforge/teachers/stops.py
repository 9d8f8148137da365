"""Why a collection ends before its time, and what to do about it."""

from decimal import Decimal

from chainforge.errors import ChainForgeError
from chainforge.teachers.budget import Budget
from chainforge.teachers.tally import JUDGED, Tally

FIRST = 5  # questions: if all of them fail, the others will
AGAIN = "then run the same command again: no answer is asked or paid for twice"

STOPS: dict[str, tuple[int, str]] = {  # cause -> exit code, what to do
    "key": (3, "set the right key in the environment"),
    "balance": (4, "top up the account"),
    "model": (5, "correct the teacher's model or base_url"),
    "budget": (6, "raise collector.budget_usd (--budget-usd), or lower the teacher's max_tokens"),
    "refused": (7, "correct the teacher's settings"),
    "no_reasoning": (8, "turn the teacher's thinking on, or choose a model that reasons"),
    "outage": (9, "check base_url and the network, or wait for the provider"),
    "signal": (130, "nothing to mend"),
}


class CollectionStopped(ChainForgeError):
    """Every answer is in the journal; the same command goes on. `exit_code` says what was in the way."""

    def __init__(self, cause: str, problem: str) -> None:
        code, fix = STOPS[cause]
        super().__init__(problem, f"{fix}, {AGAIN}")
        self.exit_code = code


def hopeless(tally: Tally, last_failure: str) -> CollectionStopped | None:
    """Whether what came so far says that the rest will be no better."""
    first = FIRST if tally.kept else min(FIRST, tally.total)  # the last of many may be a hard one
    if not tally.answers and tally.causes["refused"] >= first:
        return CollectionStopped("refused", f"the first {first} questions were all refused: {last_failure}")
    if not tally.answers and tally.skipped >= first:
        return CollectionStopped("outage", f"the first {first} questions all failed: {last_failure}")
    if tally.silent > JUDGED // 5:  # a fifth
        without = f"{tally.silent} of the first {min(tally.answers, JUDGED)} answers"
        return CollectionStopped("no_reasoning", f"{without} came without reasoning or without an answer")
    return None


def budget_reached(budget: Budget, most: Decimal) -> CollectionStopped:
    """The next call could pass the cap."""
    possibly = f", {budget.lost} USD possibly, for calls without an answer" if budget.lost else ""
    return CollectionStopped(
        "budget",
        f"the budget of {budget.cap} USD is used up: {budget.spent} USD spent{possibly}; "
        f"the next call can cost {most} USD",
    )
