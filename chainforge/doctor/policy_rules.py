"""Rules about how GRPO's policy moves: entropy, KL, sampler against learner, learning rate."""

import math
from collections.abc import Iterator

from chainforge.config.correction import FAR, MOST_MASKED
from chainforge.doctor.finding import Sign, error, warning
from chainforge.doctor.rollout_rules import EQUAL_ALL
from chainforge.doctor.runs import GrpoRun

# Each number: docs/doctor.md says where it is from.
SPENT = 0.1  # of what entropy can still buy, exp(H) - 1
ONE_ANSWER = math.log(2)  # nats per completion: fewer than two different ones
DOUBLED = math.log(2)  # nats per token: twice as many tokens to choose from
FOUR_TIMES = math.log(4)
HALF_AS_LIKELY = math.log(2)  # nats per token from the reference
TEN_TIMES = math.log(10)
CLIPPED = 0.2  # of the tokens give no gradient
UNCLIPPED = 0.001
HARDLY = 0.05  # total variation: of 100 completions, 95 would be drawn as before
STILL = 0.01  # of the entropy


def entropy_collapse(run: GrpoRun) -> Sign | None:
    """Without entropy there is nothing to explore."""
    entropy, length = run.table["entropy"], run.table["completions/mean_length"]
    if not entropy.has_trend or entropy.moved >= 0:
        return None
    left = math.expm1(entropy.late) / math.expm1(entropy.early) if entropy.early > 0 else 1.0
    nats = entropy.late * length.late
    if left >= SPENT and nats >= ONE_ANSWER:
        return None
    evidence = (
        f"from {entropy.early:.3g} nats per token in {entropy.first_steps} to {entropy.late:.3g} in "
        f"{entropy.last_steps}: about {math.exp(min(nats, 50)):,.3g} different completions per prompt"
    )
    change = (
        f"{run.key('clip_ratio_high')}: 0.28, so that unlikely tokens can gain",
        f"{run.key('kl_coeff')}, now {run.settings.kl_coeff:g}: higher",
        f"{run.key('learning_rate')}, now {run.settings.learning_rate:g}: lower",
    )
    if nats < ONE_ANSWER:
        return error("entropy has collapsed: the policy writes one completion per prompt", evidence, *change)
    return warning("entropy is nearly used up: there is little left to learn", evidence, *change)


def entropy_explosion(run: GrpoRun) -> Sign | None:
    """A policy that no longer knows what to write."""
    entropy, reward = run.table["entropy"], run.table["reward"]
    if not entropy.has_trend or entropy.late - entropy.early < DOUBLED:
        return None
    evidence = (
        f"from {entropy.early:.3g} nats per token in {entropy.first_steps} to {entropy.late:.3g} in "
        f"{entropy.last_steps}: {math.exp(entropy.late - entropy.early):.1f} times as many to choose from"
    )
    change = (
        f"{run.key('learning_rate')}, now {run.settings.learning_rate:g}: lower",
        f"{run.key('kl_coeff')}, now {run.settings.kl_coeff:g}: higher",
        f"{run.key('temperature')}, now {run.settings.temperature:g}: lower",
    )
    if reward.fell or entropy.late - entropy.early >= FOUR_TIMES:
        return error("entropy explodes: the policy writes more and more at random", evidence, *change)
    return warning("entropy rises: the policy hesitates more and more", evidence, *change)


def kl_blow_up(run: GrpoRun) -> Sign | None:
    """A policy far from the reference."""
    kl = run.table["kl"]
    if not kl.has_level or kl.usual < HALF_AS_LIKELY:
        return None
    evidence = (
        f"{kl.usual:.3g} nats per token in {kl.last_steps}: the policy's tokens are "
        f"{math.exp(min(kl.usual, 50)):,.3g} times as likely as under the reference"
    )
    change = (
        f"{run.key('learning_rate')}, now {run.settings.learning_rate:g}: lower",
        f"{run.key('kl_coeff')}, now {run.settings.kl_coeff:g}: higher",
    )
    if kl.usual >= TEN_TIMES:
        return error("the KL to the reference has blown up", evidence, *change)
    return warning("the policy is far from the reference", evidence, *change)


def mismatch(run: GrpoRun) -> Sign | None:
    """Completions that the policy would not have written."""
    table, correction = run.table, run.settings.sampling_correction
    drift, masked = table["sampling/sampling_logp_difference/mean"], table["sampling/masked_sequences"]
    if run.is_exact or not drift.has_level:
        return None  # the same column then has how far the policy moves between mini-batches
    if masked.has_level and masked.usual > MOST_MASKED:
        return error(
            "most completions are left out, because sampler and policy differ",
            f"{masked.usual:.0%} of them in {masked.last_steps}; log-probabilities differ by "
            f"{drift.usual:.3g} nats per token; the band is {correction.sequence_band}",
            f"{run.key('sampling_correction.sequence_band')}: null, or more room; token_cap alone stays",
        )
    if drift.usual <= FAR:
        return None
    evidence = f"log-probabilities differ by {drift.usual:.3g} nats per token in {drift.last_steps}"
    change = ["run.precision: float32, or float16 on a GPU, whose rounding is finer than that of bfloat16"]
    if run.settings.max_lag:
        change.insert(0, f"{run.key('max_lag')}: 0, so that the sampler is not an update behind")
    if run.settings.engine.kind == "vllm":
        change.append("runtime.vllm.arguments: is there a quantization in it?")
    if correction.when == "never":
        change.append(f"{run.key('sampling_correction.when')}: auto")
        return error("the sampler is far from the policy, and nothing corrects for it", evidence, *change)
    return warning("the sampler is far from the policy", evidence, *change)


def rate_too_high(run: GrpoRun) -> Sign | None:
    """A reward that falls because each step goes too far."""
    reward, norm = run.table["reward"], run.table["grad_norm"]
    if not reward.fell:
        return None
    signs = list(signs_of_large_steps(run))
    first, before = (
        (reward.values[0], f"step {reward.steps[0]}")
        if reward.values[0] > reward.early
        else (reward.early, reward.first_steps)
    )
    evidence = f"the reward fell from {first:.3g} in {before} to {reward.late:.3g} in {reward.last_steps}"
    if norm.has_level:
        evidence += (
            f"; the gradient's norm is {norm.usual:.3g}, of {run.settings.max_grad_norm:g} that may pass"
        )
    change = (
        f"{run.key('learning_rate')}, now {run.settings.learning_rate:g}: a third or a tenth of it",
        f"{run.key('kl_coeff')}, now {run.settings.kl_coeff:g}: higher",
    )
    if signs:
        return error("the learning rate is too high", "; ".join([evidence, *signs]), *change)
    return warning("the reward falls", evidence, *change)


def signs_of_large_steps(run: GrpoRun) -> Iterator[str]:
    """What tells of updates that go too far, in words.

    One step is enough: after it there may be no group whose rewards differ, and so no further figures.
    """
    table = run.table
    clipped, kl, entropy = table["clip_ratio/region_mean"], table["kl"], table["entropy"]
    if clipped.values and max(clipped.values) >= CLIPPED:
        yield f"the ratio of {max(clipped.values):.0%} of the tokens was clipped in step {clipped.highest}"
    if kl.values and max(kl.values) >= HALF_AS_LIKELY:
        yield f"the KL to the reference was {max(kl.values):.3g} nats per token in step {kl.highest}"
    if entropy.values:
        first, last = entropy.values[0], entropy.values[-1]
        is_spent = first > 0 and math.expm1(last) / math.expm1(first) < SPENT
        if is_spent or abs(last - first) >= DOUBLED:
            yield f"entropy went from {first:.3g} to {last:.3g} nats per token"


def rate_too_low(run: GrpoRun) -> Sign | None:
    """A policy that hardly moves."""
    table = run.table
    reward, equal, clipped = table["reward"], table["frac_reward_zero_std"], table["clip_ratio/region_mean"]
    if not reward.has_trend or abs(reward.moved) >= reward.sure or equal.usual >= EQUAL_ALL:
        return None
    if not clipped.has_trend or max(clipped.values) > UNCLIPPED:
        return None
    change = (f"{run.key('learning_rate')}, now {run.settings.learning_rate:g}: three or ten times as much",)
    evidence = f"after {table.rows:,} steps the reward is {reward.late:.3g}, and was {reward.early:.3g}"
    kl, entropy, length = table["kl"], table["entropy"], table["completions/mean_length"]
    if kl.has_trend and not run.settings.ref_sync_steps:
        reach = math.sqrt(max(kl.late, 0.0) * length.late / 2)
        if reach >= HARDLY:
            return None
        evidence += (
            f"; the KL to the reference, {kl.late:.2g} nats per token, allows for at most {100 * reach:.1f} "
            "points more of anything"
        )
    elif not entropy.has_trend or abs(entropy.late - entropy.early) >= STILL * entropy.early:
        return None
    return warning("the learning rate is too low: the policy hardly moves", evidence, *change)
