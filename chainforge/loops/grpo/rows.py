"""What one rollout gives the update: its completions with their advantages, in mini-batches."""

from collections.abc import Sequence
from dataclasses import dataclass

from chainforge.algorithms.advantages import advantages, zero_variance_N
from chainforge.config.grpo import GrpoSettings
from chainforge.loops.grpo.rewards import rewards_NG
from chainforge.models.batches import Tokens
from chainforge.models.chat import encode_prompt, opening
from chainforge.models.checkpoint import Policy
from chainforge.records import Group
from chainforge.run.step import Step


@dataclass(slots=True)
class Row:
    """One completion as the update sees it. `learns` is false where its gradient is zero anyway.

    `old_logp` is None where the policy is still the one that sampled: there the ratio is one by construction.
    """

    tokens: Tokens
    sampled_logp: Sequence[float]
    old_logp: Sequence[float] | None
    ref_logp: Sequence[float]
    advantage: float
    masked: bool
    learns: bool


def make_rows(policy: Policy, groups: Sequence[Group], settings: GrpoSettings, step: Step) -> list[Row]:
    """Completions with their advantages, group by group."""
    reward_NG = rewards_NG(groups)
    advantage_NG = advantages(reward_NG, scale=settings.scale_rewards).tolist()
    is_equal_N = zero_variance_N(reward_NG).tolist()
    prefill = opening(policy.tokenizer, step.response_format)
    rows = []
    for group, advantage_G, is_equal in zip(groups, advantage_NG, is_equal_N, strict=True):
        kl_counts = settings.kl_coeff > 0 and not (is_equal and settings.drop_equal_groups)
        prompt_ids = encode_prompt(policy.tokenizer, group.prompt.messages, prefill)
        for completion, advantage in zip(group.completions, advantage_G, strict=True):
            masked = settings.mask_truncated and completion.finish == "length"
            rows.append(
                Row(
                    Tokens(prompt_ids, completion.token_ids),
                    sampled_logp=completion.logprobs,
                    old_logp=None,
                    ref_logp=(),
                    advantage=advantage,
                    masked=masked,
                    learns=not masked and (advantage != 0 or kl_counts),
                )
            )
    return rows


def mini_batches(rows: Sequence[Row], settings: GrpoSettings) -> list[list[Row]]:
    """The mini-batches: every group whole, as even as it goes."""
    groups = [rows[i : i + settings.group_size] for i in range(0, len(rows), settings.group_size)]
    parts = [groups[i :: settings.mini_batches] for i in range(settings.mini_batches)]
    return [[row for group in part for row in group] for part in parts]
