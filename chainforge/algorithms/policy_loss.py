"""A policy loss, summed over the completions of a micro-batch, and what to divide the sum over a step by.

B completions of a micro-batch, T completion tokens, N completions of a whole step. Padding is wherever
`mask_BT` is 0; log-probabilities are in nats.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from chainforge.algorithms.kl import KL_ESTIMATORS
from chainforge.algorithms.losses import LOSSES, LossSettings
from chainforge.errors import ChainForgeError

Stats = dict[str, Tensor]


def policy_loss(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    ref_logp_BT: Tensor | None,
    advantage_B: Tensor,
    mask_BT: Tensor,
    settings: LossSettings,
    importance_BT: Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """The negated objective summed over completions, and (sum, count) pairs to log.

    Divide by `loss_denominator` of the whole step: being sums, loss and stats are the same for any size of
    micro-batch. On-policy, `old_logp_BT` is `logp_BT.detach()`. What stands in padding never matters.
    `importance_BT` are weights of the gain, see importance_sampling.py; the KL and the denominator have none.
    """
    if (ref_logp_BT is None) != (settings.kl_coeff == 0):
        found = "no reference log-probabilities" if ref_logp_BT is None else "reference log-probabilities"
        fix = "pass ref_logp_BT exactly when kl_coeff is not 0"
        raise ChainForgeError(f"kl_coeff is {settings.kl_coeff} but there are {found}", fix)
    loss = LOSSES[settings.loss_type]
    padding_BT, mask_BT = mask_BT == 0, mask_BT.to(logp_BT.dtype)
    logp_BT, old_logp_BT = logp_BT.masked_fill(padding_BT, 0.0), old_logp_BT.masked_fill(padding_BT, 0.0)
    advantage_B1 = advantage_B[:, None]

    ratio_BT = loss.log_ratio(logp_BT - old_logp_BT, mask_BT).exp()
    value_BT = -loss.gain(ratio_BT, advantage_B1, logp_BT, settings)
    if importance_BT is not None:
        value_BT = value_BT * importance_BT
    stats = clip_stats(loss.clipped(ratio_BT, logp_BT, settings), advantage_B1, mask_BT)
    if ref_logp_BT is not None:
        kl_BT = KL_ESTIMATORS[settings.kl_estimator](ref_logp_BT.masked_fill(padding_BT, 0.0) - logp_BT)
        kl_BT = kl_BT * ratio_BT if settings.kl_importance_weighted else kl_BT
        value_BT = value_BT + settings.kl_coeff * kl_BT
        stats["kl"] = sum_and_count(kl_BT, mask_BT)
    return (loss.weight(mask_BT, settings) * value_BT).sum(), stats


def loss_denominator(settings: LossSettings, mask_NT: Tensor) -> float:
    """What to divide the summed loss by, from the mask of all completions of the optimizer step.

    Completions left out of the forward pass because their advantage is 0 must be in `mask_NT` all the same.
    """
    return max(LOSSES[settings.loss_type].total(mask_NT), 1.0)


def clip_stats(clipped: tuple[Tensor, Tensor], advantage_B1: Tensor, mask_BT: Tensor) -> Stats:
    """How often clipping took the gradient away: below (negative advantage), above (positive), either."""
    low_BT, high_BT = clipped[0] & (advantage_B1 < 0), clipped[1] & (advantage_B1 > 0)
    found = {"clip_low": low_BT, "clip_high": high_BT, "clip_region": low_BT | high_BT}
    return {name: sum_and_count(is_clipped.to(mask_BT.dtype), mask_BT) for name, is_clipped in found.items()}


def sum_and_count(value_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The sum over what is counted, and its count: tokens, or completions if there is one value for each."""
    counted_BT = mask_BT if value_BT.shape == mask_BT.shape else torch.ones_like(value_BT)
    return torch.stack([(value_BT * counted_BT).sum(), counted_BT.sum()]).detach()


def stat_means(stats: Mapping[str, Tensor]) -> dict[str, float]:
    """Means from the stats of a whole step, which are the sums of those of its micro-batches."""
    return {name: (total / count.clamp(min=1)).item() for name, (total, count) in stats.items()}
