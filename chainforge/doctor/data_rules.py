"""Rules about data and supervised steps: what was dropped, how much is left, how well it was learnt."""

from chainforge.config.filter import FilterSettings
from chainforge.doctor.finding import Sign, error, warning
from chainforge.doctor.runs import GrpoRun, SelectionRun, SftRun

# Each number: docs/doctor.md says where it is from.
MOST = 0.5  # of what was read
NEARLY_ALL = 0.9
LOSS_RISE = 0.05  # of the lowest held-out loss
UPDATES = 10  # optimizer steps
JUMP = 2.0  # times the first loss
NOT_BAD = ("duplicate", "near_duplicate", "duplicate_prompt", "near_duplicate_prompt", "over_quota")
TO_CHANGE = {
    "wrong": "reward: is it strict about the form? Read some of those traces; or take a better teacher",
    "ungraded": "reward: it failed on these; runtime.reward_timeout_s may be too short",
    "finish_length": "the teacher's limit of tokens: higher",
    "no_reasoning": "the teacher: it gives answers without reasoning; one that reasons",
    "contains_tag": "run.response_format: its tags are in the teacher's text; another one",
    "language": "scripts, min_script_share",
    "too_short": "min_characters",
    "too_long": "max_characters",
    "repetition": "max_repetition",
    "contaminated_ngram": "decontaminate_words: a longer run; or null where problems are made from templates",
}


def mostly_dropped(run: SelectionRun) -> Sign | None:
    """Most of what was read is of no use. What is merely too much of the same does not count."""
    bad = {reason: n for reason, n in run.funnel.dropped.items() if reason not in NOT_BAD}
    without, prompts = run.funnel.other.get("prompts_without"), run.funnel.other.get("prompts")
    if isinstance(run.settings, FilterSettings) or not prompts or without is None:
        share = sum(bad.values()) / run.funnel.read if run.funnel.read else 0.0
        evidence = f"{run.funnel.kept:,} of {run.funnel.read:,} kept"
    else:
        share = without / prompts
        evidence = f"{without:,.0f} of {prompts:,.0f} prompts have no completion that was kept"
    if share < MOST or not bad:
        return None
    worst = max(bad, key=lambda reason: bad[reason])
    evidence += f"; {bad[worst]:,} were dropped as {worst}"
    if isinstance(run.settings, FilterSettings):
        change = [f"{run.step}: {TO_CHANGE.get(worst, f'what drops {worst}')}"]
    else:
        change = [
            f"{run.key('min_reward')}, now {run.settings.min_reward:g}: can the rewards reach it? "
            f"They weigh {sum(run.settings.rewards.values()):g} together",
            f"{run.key('samples')}, now {run.settings.samples}: more for each prompt",
            f"{run.key('start_from')}: a checkpoint that solves more",
        ]
    say = error if share >= NEARLY_ALL else warning
    return say(f"{'nearly all' if share >= NEARLY_ALL else 'most'} of it was dropped", evidence, *change)


def too_few_examples(run: SftRun) -> Sign | None:
    """A step that can hardly learn anything."""
    examples, steps = run.summary.get("examples"), run.summary.get("steps")
    if examples is None or steps is None:
        return None
    batch, too_long = run.settings.batch_size, run.summary.get("too_long") or 0
    change = ["the step that makes the examples: more prompts, or a filter that drops fewer"]
    if too_long > examples:
        change.insert(0, f"{run.key('max_tokens')}, now {run.settings.max_tokens}: higher")
    evidence = (
        f"{examples:,.0f} examples, {too_long:,.0f} more were too long; {steps:,.0f} steps of {batch} each"
    )
    if examples < batch:
        return error("the training set is smaller than one batch", evidence, *change)
    if steps < UPDATES:
        more = f"{run.key('num_epochs')}, now {run.settings.num_epochs:g}: more"
        return warning("the step is over after a few updates", evidence, *change, more)
    return None


def too_few_prompts(run: GrpoRun) -> Sign | None:
    """Prompts that come again within one rollout."""
    n, wanted = run.prompts, run.settings.prompts_per_step
    if n is None or n >= wanted:
        return None
    return error(
        "there are fewer prompts than one rollout asks",
        f"{n:,} in {run.settings.prompts}, and {wanted:,} for each RL step",
        "prompts.SET.train: more",
        f"{run.key('prompts_per_step')}, now {wanted}: fewer",
    )


def overfitting(run: SftRun) -> Sign | None:
    """The held-out loss rises again."""
    held_out = run.table["eval_loss"]
    if len(held_out.values) < 2:
        return None
    lowest, last = min(held_out.values), held_out.values[-1]
    step = held_out.steps[held_out.values.index(lowest)]
    if last <= (1 + LOSS_RISE) * lowest:
        return None
    evidence = (
        f"it was {lowest:.3g} in step {step}, and is {last:.3g} in step {held_out.steps[-1]}, "
        f"{last / lowest - 1:.0%} higher"
    )
    change = [
        f"{run.key('num_epochs')}, now {run.settings.num_epochs:g}: about "
        f"{max(run.settings.num_epochs * step / held_out.steps[-1], 0.1):.2g}, where it was lowest",
        "the step that makes the examples: more of them",
    ]
    if last > held_out.values[0] and held_out.values[0] > lowest:
        return error("overfitting: the held-out loss is higher than at the first look", evidence, *change)
    return warning("overfitting: the held-out loss rises", evidence, *change)


def loss_not_falling(run: SftRun) -> Sign | None:
    """A supervised loss that ends where it began, or higher."""
    loss, norm = run.table["loss"], run.table["grad_norm"]
    if not loss.has_trend:
        return None
    first, highest = loss.values[0], max(loss.values)
    evidence = f"{first:.3g} in step {loss.steps[0]}, {loss.late:.3g} in {loss.last_steps}"
    rate = f"{run.key('learning_rate')}, now {run.settings.learning_rate:g}"
    if run.settings.muon_learning_rate:
        rate += f", and {run.key('muon_learning_rate')}, now {run.settings.muon_learning_rate:g}"
    if highest >= JUMP * first:
        evidence += f"; {highest:.3g} in step {loss.highest}"
    if loss.late >= first and highest >= JUMP * first:
        return error("the loss has jumped, and ends higher than it was", evidence, f"{rate}: a tenth")
    if loss.late >= first or not loss.fell:
        evidence += f"; the gradient's norm is {norm.late:.3g}" if norm.has_level else ""
        return warning("the loss does not fall", evidence, f"{rate}: three or ten times as much")
    return None
