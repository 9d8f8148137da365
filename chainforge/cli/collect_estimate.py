"""`chainforge collect --dry-run`: what is left to ask, and what that will take."""

from datetime import timedelta

from chainforge.cli.collect_plan import Plan
from chainforge.cli.show import show
from chainforge.teachers.answers import WITHOUT_THOUGHT
from chainforge.teachers.estimate import estimate
from chainforge.teachers.trial import Trial, trial_of
from chainforge.teachers.usable import read_answers


def say_estimate(plan: Plan, concurrency: int) -> None:
    """Between which bounds it lies, and where, if there are answers to judge by."""
    paid = read_answers(plan.folder, plan.teacher, plan.questions)
    found = estimate(plan.teacher, plan.questions, paid)
    show(f"{plan.title}: {found.questions:,} questions, {found.left:,} not answered yet")
    show(f"  prompt    about {found.prompt_tokens:>15,} tokens")
    show(
        f"  output    {found.low_output_tokens:>12,} to {found.high_output_tokens:,} tokens "
        f"({plan.teacher.max_tokens:,} each at most)"
    )
    if found.low_usd is None or found.high_usd is None:
        show("  cost      unknown: the teacher has no price; set teacher.usd_per_million")
    else:
        show(f"  cost      {found.low_usd:>12,.2f} to {found.high_usd:,.2f} USD, without asking again")
    if found.left and (trial := trial_of(plan.teacher, plan.folder, paid)):
        say_likely(trial, found.left, concurrency)
    if not plan.teacher.thinks:
        show(f"  beware    {WITHOUT_THOUGHT}")
    if paid.run:
        show(f"  already spent {paid.spent} USD, possibly {paid.possibly} more: {plan.folder}")


def say_likely(trial: Trial, left: int, concurrency: int) -> None:
    """What the rest will take if it is like what there is, without what waits and refusals cost in time."""
    time = timedelta(seconds=round(left * trial.seconds / min(concurrency, left)))
    tokens = f"{left * trial.tokens:,.0f} tokens of output"
    usd = trial.usd_for(left)
    cost = "" if usd is None else f"{usd[0]:,.2f} to {usd[1]:,.2f} USD off peak, "
    show(f"  likely    {cost}{tokens}, {time} h at {concurrency} at a time,")
    show(f"            {left * trial.bytes / 1e6:,.1f} MB of journal, by {trial.answers:,} answers so far")
