"""Rules about held-out problems: rewards that part from answers, and differences too small to tell."""

import math

from chainforge.algorithms.statistics import Z
from chainforge.doctor.finding import Sign, error, note, warning
from chainforge.doctor.rollout_rules import CUT_MOST, CUT_SOME
from chainforge.doctor.runs import Comparison, EvaluationRun, GrpoRun
from chainforge.doctor.series import SURE

# Each number: docs/doctor.md says where it is from.
POWER = 0.8416212335729143  # standard normal: a difference is found in four cases of five
CLOSE = 0.01  # an interval of this half-width says enough
MANY = 100_000  # problems that nobody has


def reward_hacking(run: GrpoRun) -> Sign | None:
    """The reward rises, and what it stands for falls."""
    change = (
        f"{run.key('rewards')}: read what is rewarded there, and wrong; mend that reward",
        f"{run.key('kl_coeff')}, now {run.settings.kl_coeff:g}: higher",
    )
    if parts := _watch_parts(run):
        return error(
            "the reward rises while answers get worse",
            parts,
            f"{change[0]} (logs/{run.step}.watch.jsonl)",
            change[1],
        )
    answers = run.table[f"rewards/{run.answers}/mean"]
    if run.table["reward"].rose and answers.fell:
        return error(
            "the reward rises while answers get worse",
            f"the reward went from {run.table['reward'].early:.3g} to {run.table['reward'].late:.3g}, and "
            f"{answers.name} from {answers.early:.3g} to {answers.late:.3g}",
            f"{run.key('rewards')}: less weight for those besides {run.answers}",
            change[1],
        )
    worse = [c for c in run.held_out if c.paired.hi < 0]
    better = [c for c in run.held_out if c.paired.lo > 0]
    if not run.table["reward"].rose or not worse or better:
        return None
    reward = run.table["reward"]
    return error(
        "the reward rises while held-out answers get worse",
        f"the reward went from {reward.early:.3g} to {reward.late:.3g}; {worse[0].checkpoint} less "
        f"{worse[0].parent}: {'; '.join(c.told for c in worse)}",
        *change,
        f"{run.key('watch')}: a grader that sees it while the step trains",
    )


def _watch_parts(run: GrpoRun) -> str | None:
    """What the watch saw, where reward and grader part by more than chance: as loops/grpo/watch.py says it,
    but from means alone, so that the two looks count as independent."""
    rewards, right = run.table["watch/reward"], run.table["watch/grader"]
    if len(right.values) < 2 or not run.watched:
        return None
    grader = run.settings.watch.reward if run.settings.watch else "the grader"
    best = max(range(len(right.values)), key=lambda i: right.values[i])
    before, after = right.values[best], right.values[-1]
    error_of_difference = math.sqrt((before * (1 - before) + after * (1 - after)) / run.watched)
    if rewards.values[-1] <= rewards.values[best] or before - after <= SURE * error_of_difference:
        return None
    return (
        f"from step {right.steps[best]} to {right.steps[-1]}, on {run.watched:,} held-out prompts, the "
        f"reward went from {rewards.values[best]:.3g} to {rewards.values[-1]:.3g}, and the share that is "
        f"right, as {grader} sees it, from {before:.1%} to {after:.1%}"
    )


def worse_than_parent(run: EvaluationRun) -> Sign | None:
    """A step that took more than it gave."""
    if not run.comparison or run.comparison.paired.hi >= 0:
        return None
    return warning(
        f"{run.comparison.checkpoint} is worse than {run.comparison.parent}",
        run.comparison.told,
        "gates: a gate before the next step stops such a run",
        "the settings of the step between the two: its learning_rate, its data, its rewards",
    )


def noise_over_effect(run: EvaluationRun) -> Sign | None:
    """A difference that cannot be told from chance."""
    c = run.comparison
    if not c or not c.paired.lo <= 0 <= c.paired.hi or half_width(c) < CLOSE:
        return None
    needed = problems_needed(c)
    more = (
        f"evaluation problems, prompts.SET.eval and evaluate.max_prompts: about {needed:,} would "
        "show a difference of this size in four cases of five"
        if needed <= MANY
        else "nothing: a difference this small needs more problems than there are; take it as none"
    )
    return note(
        f"{c.checkpoint} and {c.parent} cannot be told apart",
        c.told,
        more,
        "several seeds say more than one: chainforge seeds, chainforge compare --over run.seed",
    )


def half_width(c: Comparison) -> float:
    """Of its interval."""
    return (c.paired.hi - c.paired.lo) / 2


def problems_needed(c: Comparison) -> int:
    """With how many problems a difference of this size would be found in four cases of five."""
    if c.paired.mean_difference == 0:
        return MANY + 1
    ratio = (Z + POWER) * half_width(c) / Z / abs(c.paired.mean_difference)
    return math.ceil(min(c.n * ratio**2, MANY + 1))


def evaluation_truncated(run: EvaluationRun) -> Sign | None:
    """Answers that were cut off count as wrong."""
    cut, limit = run.metrics.get("truncated_rate"), run.settings.max_new_tokens
    if cut is None or cut < CUT_SOME:
        return None
    evidence = f"{cut:.0%} of the answers were cut at {limit} tokens, and count as wrong"
    change = (
        f"{run.key('max_new_tokens')}, now {limit}: higher, where answers are long; else train it to stop"
    )
    if cut >= CUT_MOST:
        return error("most answers of the evaluation are cut off", evidence, change)
    return warning("many answers of the evaluation are cut off", evidence, change)
