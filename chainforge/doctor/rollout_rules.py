"""Rules about GRPO's completions: rewards that differ, ends that are reached, lengths, answers."""

import math

from chainforge.doctor.finding import Sign, error, note, warning
from chainforge.doctor.runs import GrpoRun

# Each number: docs/doctor.md says where it is from.
EQUAL_SOME = 0.75  # share of equal groups at which the gradient's noise has doubled: 1 / sqrt(1 - share)
EQUAL_ALL = 0.95  # fewer than one group in twenty teaches
CUT_SOME = 0.1  # accuracy is at most 1 - cut
CUT_MOST = 0.5  # most have no answer
SHORT = 0.5  # of the limit: what ends by itself is so short that the limit is not what is wrong
LENGTH_FACTOR = 2.0  # twice or half as long
FORM = 0.9  # share of completions in which the form is right
SOMETIMES = 0.5  # chance that a group has a right answer at all
FULL = 0.95  # of the highest reward, where each is at most 1


def equal_rewards(run: GrpoRun) -> Sign | None:
    """Groups in which all rewards are equal have advantages of 0, and teach nothing."""
    share, reward = run.table["frac_reward_zero_std"], run.table["reward"]
    if not share.has_level or share.usual < EQUAL_SOME:
        return None
    constant = [name for name in run.settings.rewards if not any(run.table[f"rewards/{name}/std"].values)]
    evidence = (
        f"{share.usual:.0%} of the groups in {share.last_steps}; their mean reward is {reward.late:.3g}"
    )
    resample = (
        f"{run.key('resample_rounds')}, now {run.settings.resample_rounds}: 2 or more, so that such groups "
        "are replaced by other prompts"
    )
    if constant and len(constant) == len(run.settings.rewards):
        change = [
            f"{run.key('rewards')}: {', '.join(constant)} gave every completion the same. Try it on a "
            "right and on a wrong answer"
        ]
    elif reward.late >= FULL * sum(run.settings.rewards.values()):
        harder = f"{run.key('prompts')}: harder ones, if there is more to learn"
        return note("rewards are nearly full in most groups: little is left to learn", evidence, harder)
    else:
        change = [
            resample,
            f"{run.key('group_size')}, now {run.settings.group_size}: more, so that a group has both kinds",
            f"{run.key('prompts')}: problems that are sometimes solved; or a longer cold start where none is",
        ]
    if share.usual >= EQUAL_ALL:
        return error(
            "nearly all groups have equal rewards, so nothing is learnt from them", evidence, *change
        )
    noise = 1 / math.sqrt(1 - share.usual)
    evidence += f"; the gradient is {noise:.1f} times as noisy as if all groups counted"
    return warning("most groups have equal rewards, and teach nothing", evidence, *change)


def truncated(run: GrpoRun) -> Sign | None:
    """Completions that were cut off have no answer."""
    cut, ended = run.table["completions/clipped_ratio"], run.table["completions/mean_terminated_length"]
    if not cut.has_level or cut.usual < CUT_SOME:
        return None
    limit = run.settings.max_new_tokens
    evidence = f"{cut.usual:.0%} of the completions in {cut.last_steps} were cut at {limit} tokens"
    raised = f"{run.key('max_new_tokens')}, now {limit}: higher"
    change = [raised, f"{run.key('mask_truncated')}: true, so that what was cut does not count as wrong"]
    if ended.has_level:
        evidence += f"; those that ended had {ended.usual:.0f} on average"
        if cut.has_trend and cut.early < CUT_SOME:
            evidence += f"; in {cut.first_steps} {cut.early:.0%} were cut, so training made it so"
            change = [
                f"{run.key('rewards')}: does one of them pay for length?",
                f"{run.key('learning_rate')}, now {run.settings.learning_rate:g}: lower",
                raised,
            ]
        elif ended.usual < SHORT * limit:
            change = [
                "the data of the SFT before: the others never stop by themselves. Do its examples end as "
                "they should, and was it long enough?",
                raised,
            ]
    if cut.usual >= CUT_MOST:
        return error("most completions are cut off before they answer", evidence, *change)
    return warning("many completions are cut off before they answer", evidence, *change)


def length_drift(run: GrpoRun) -> Sign | None:
    """Completions that grow or shrink without becoming right more often."""
    length, truth = run.table["completions/mean_length"], run.truth
    if not length.has_trend or truth.rose:
        return None
    factor = length.late / length.early if length.early else 1.0
    if 1 / LENGTH_FACTOR < factor < LENGTH_FACTOR or abs(length.moved) < length.sure:
        return None
    evidence = (
        f"from {length.early:.0f} tokens in {length.first_steps} to {length.late:.0f} in "
        f"{length.last_steps}, while {truth.name} went from {truth.early:.3g} to {truth.late:.3g}"
    )
    if factor > 1:
        return warning(
            "completions get longer, not better",
            evidence,
            f"{run.key('rewards')}: does one of them pay for length? Reward overlong takes it back",
            f"{run.key('loss_type')}, now {run.settings.loss_type}: dr_grpo or dapo: grpo favours "
            "wrong answers that are long",
        )
    return warning(
        "completions get shorter, not better",
        evidence,
        f"{run.key('rewards')}: is a short answer paid without being right?",
        f"{run.key('learning_rate')}, now {run.settings.learning_rate:g}: lower",
    )


def form_only(run: GrpoRun) -> Sign | None:
    """The format is learnt, the answers are not."""
    answers = run.table[f"rewards/{run.answers}/mean"]
    forms = [name for name in run.settings.rewards if name != run.answers]
    kept = [s for name in forms if (s := run.table[f"rewards/{name}/mean"]).has_level and s.late >= FORM]
    often = 1 - (1 - SOMETIMES) ** (1 / run.settings.group_size)
    if not kept or not answers.has_trend or answers.rose or answers.late >= often:
        return None
    form = kept[0]
    return error(
        "the format is learnt, the answers are not",
        f"in {answers.last_steps}, {form.name} is {form.late:.2f} and {answers.name} {answers.late:.3f}; "
        f"below {often:.3f}, most groups of {run.settings.group_size} have no right answer to learn from",
        f"{run.key('prompts')}: easier problems, or a longer cold start",
        f"{run.key('group_size')}, now {run.settings.group_size}: more, so that a right answer turns up",
        f"{run.key('rewards')}: less weight for {form.name.split('/')[1]}",
    )
