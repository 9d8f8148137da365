"""The update half of GRPO: completions with advantages in, one optimizer step out.

N completions of an optimizer step, B of a micro-batch, T completion tokens.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from chainforge.algorithms.advantages import advantages, zero_variance_N
from chainforge.algorithms.losses import LossSettings, Stats, loss_denominator, policy_loss, stat_means
from chainforge.config.grpo import GrpoSettings
from chainforge.loops.grpo_metrics import rewards_NG
from chainforge.models.batches import Tokens, collate, micro_batches, pad_rows
from chainforge.models.chat import encode_prompt
from chainforge.models.checkpoint import Policy
from chainforge.models.logprobs import completion_logprobs, mixed_precision
from chainforge.models.optimizer import NotFinite, ScheduledOptimizer
from chainforge.outputs import write_text
from chainforge.records import Group
from chainforge.run.step import LOGS, Step


@dataclass(slots=True)
class Row:
    """One completion as the update sees it. `learns` is false where its gradient is zero anyway."""

    tokens: Tokens
    old_logp: Sequence[float]
    ref_logp: Sequence[float]
    advantage: float
    masked: bool
    learns: bool


def make_rows(policy: Policy, groups: Sequence[Group], settings: GrpoSettings, step: Step) -> list[Row]:
    """Completions with their advantages, group by group."""
    reward_NG = rewards_NG(groups)
    advantage_NG = advantages(reward_NG, scale=settings.scale_rewards).tolist()
    is_equal_N = zero_variance_N(reward_NG).tolist()
    prefill = step.response_format.prefill
    rows = []
    for group, advantage_G, is_equal in zip(groups, advantage_NG, is_equal_N, strict=True):
        kl_counts = settings.kl_coeff > 0 and not (is_equal and settings.drop_equal_groups)
        prompt_ids = encode_prompt(policy.tokenizer, group.prompt.messages, prefill)
        for completion, advantage in zip(group.completions, advantage_G, strict=True):
            masked = settings.mask_truncated and completion.finish == "length"
            rows.append(
                Row(
                    Tokens(prompt_ids, completion.token_ids),
                    old_logp=completion.logprobs,
                    ref_logp=(),
                    advantage=advantage,
                    masked=masked,
                    learns=not masked and (advantage != 0 or kl_counts),
                )
            )
    return rows


def add_logprobs(
    policy: Policy, reference: Policy | None, rows: Sequence[Row], settings: GrpoSettings, step: Step
) -> None:
    """Reference log-probabilities where the KL counts; the policy's where the sampler's are too coarse."""
    learning = [row for row in rows if row.learns]
    if reference:
        for row, logp in zip(learning, logprobs_of(reference, learning, settings, step), strict=True):
            row.ref_logp = logp
    if step.settings.precision != "float32":
        for row, logp in zip(learning, logprobs_of(policy, learning, settings, step), strict=True):
            row.old_logp = logp


@torch.no_grad()
def logprobs_of(policy: Policy, rows: Sequence[Row], settings: GrpoSettings, step: Step) -> list[list[float]]:
    found: list[list[float]] = [[] for _ in rows]
    for indices in micro_batches([len(row.tokens) for row in rows], step.runtime.micro_batch_tokens):
        batch = collate([rows[i].tokens for i in indices], policy.device)
        with mixed_precision(step.settings.precision, policy.device):
            logp_BT, _ = completion_logprobs(policy.model, batch, temperature=settings.temperature)
        for index, logp_T in zip(indices, logp_BT.tolist(), strict=True):
            found[index] = logp_T[: len(rows[index].tokens.completion)]
    return found


def mini_batches(rows: Sequence[Row], settings: GrpoSettings) -> list[list[Row]]:
    """The mini-batches: every group whole, as even as it goes."""
    groups = [rows[i : i + settings.group_size] for i in range(0, len(rows), settings.group_size)]
    parts = [groups[i :: settings.mini_batches] for i in range(settings.mini_batches)]
    return [[row for group in part for row in group] for part in parts]


def update(
    policy: Policy, optimizer: ScheduledOptimizer, rows: Sequence[Row], settings: GrpoSettings, step: Step
) -> dict[str, float]:
    """One optimizer step on these rows; the result does not depend on the size of a micro-batch."""
    learning = [row for row in rows if row.learns]
    if not learning:
        return {}
    loss_settings = loss_settings_of(settings)
    lengths = [0 if row.masked else len(row.tokens.completion) for row in rows]
    denominator = loss_denominator(
        loss_settings, (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])
    )
    totals: dict[str, Tensor] = {}
    for indices in micro_batches([len(row.tokens) for row in learning], step.runtime.micro_batch_tokens):
        chosen = [learning[i] for i in indices]
        loss, stats = micro_batch_loss(policy, chosen, loss_settings, settings, step)
        if not loss.isfinite():
            dump(chosen, step)
            raise NotFinite("the loss", loss.item())
        (loss / denominator).backward()
        stats["loss"] = torch.stack([loss.detach() / denominator, torch.ones_like(loss.detach())])
        for name, value in stats.items():
            totals[name] = totals.get(name, torch.zeros_like(value)) + value
    loss_total = totals.pop("loss")[0].item()
    try:
        grad_norm = optimizer.step()
    except NotFinite:
        dump(learning, step)
        raise
    return stat_means(totals) | {
        "loss": loss_total,
        "grad_norm": grad_norm,
        "learning_rate": optimizer.learning_rate,
    }


def micro_batch_loss(
    policy: Policy, rows: Sequence[Row], loss: LossSettings, settings: GrpoSettings, step: Step
) -> tuple[Tensor, Stats]:
    """The summed loss of one micro-batch and its (sum, count) statistics."""
    batch = collate([row.tokens for row in rows], policy.device)
    with mixed_precision(step.settings.precision, policy.device):
        logp_BT, entropy_BT = completion_logprobs(policy.model, batch, temperature=settings.temperature)
    width = batch.mask_BT.shape[1]
    sampled_BT = pad_rows([row.old_logp for row in rows], width, policy.device)
    one_step = settings.num_iterations == settings.mini_batches == 1
    total, stats = policy_loss(
        logp_BT,
        logp_BT.detach() if one_step else sampled_BT,  # on-policy the ratio is one by construction
        pad_rows([row.ref_logp for row in rows], width, policy.device) if settings.kl_coeff > 0 else None,
        torch.tensor([row.advantage for row in rows], device=policy.device),
        batch.mask_BT,
        loss,
    )
    tokens = batch.mask_BT.sum()
    stats["entropy"] = torch.stack([entropy_BT.sum(), tokens])
    stats["drift"] = torch.stack([(logp_BT.detach() - sampled_BT).abs()[batch.mask_BT].sum(), tokens])
    return total, stats


def loss_settings_of(settings: GrpoSettings) -> LossSettings:
    """The part of a step's settings that the loss needs."""
    return LossSettings(
        loss_type=settings.loss_type,
        max_tokens=settings.max_new_tokens,
        clip_ratio=settings.clip_ratio,
        clip_ratio_high=settings.clip_ratio_high,
        dual_clip=settings.dual_clip,
        kl_coeff=settings.kl_coeff,
        kl_estimator=settings.kl_estimator,
        kl_importance_weighted=settings.kl_importance_weighted,
    )


def dump(rows: Sequence[Row], step: Step) -> None:
    """Leave the rows of a non-finite update where a person can look at them."""
    path = LOGS / f"{step.file_name}.not-finite.json"
    write_text(path, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
