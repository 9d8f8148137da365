"""A sampler that is not quite the policy: how far it is off, and what makes up for it.

p is the probability of a sampled token under the policy that is about to learn, q the one that the sampler
drew it with. B completions, T completion tokens, in nats. What stands in padding, where `mask_BT` is 0, never
matters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # settings may read this, and must not wait for torch
    from torch import Tensor


def importance_weights(
    logp_BT: Tensor,
    sampled_logp_BT: Tensor,
    mask_BT: Tensor,
    *,
    token_cap: float | None,
    sequence_band: Sequence[float] | None,
) -> Tensor:
    """What to multiply each token's gain by, shape BT: w = min(p / q, token_cap), and 0 in a completion whose
    geometric mean of p / q is outside of `sequence_band`.

    Without a cap, w is 1; without a band, no completion is left out. No gradient flows through a weight.
    Sources: the cap, F. Yao et al., "Your efficient RL framework secretly brings you off-policy RL training",
    2025; the band, J. Liu, Y. Li et al., "When speed kills stability", 2025.
    """
    log_ratio_BT = log_ratio(logp_BT, sampled_logp_BT, mask_BT)
    weight_BT = (
        truncated_ratio(log_ratio_BT, token_cap) if token_cap else log_ratio_BT.new_ones(mask_BT.shape)
    )
    if sequence_band is None:
        return weight_BT
    return weight_BT * in_band(log_ratio_BT, mask_BT, sequence_band)


def log_ratio(logp_BT: Tensor, sampled_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """log p − log q without a gradient, 0 in padding."""
    return (logp_BT - sampled_logp_BT).detach().masked_fill(mask_BT == 0, 0.0)


def truncated_ratio(log_ratio_BT: Tensor, cap: float) -> Tensor:
    """min(p / q, cap): a token that the sampler hardly ever draws must not outweigh a whole batch."""
    return log_ratio_BT.exp().clamp(max=cap)


def in_band(log_ratio_BT: Tensor, mask_BT: Tensor, band: Sequence[float]) -> Tensor:
    """Whether exp(mean over t of log p − log q) is in the band, bounds included, B1."""
    low, high = band
    mean_B1 = log_ratio_BT.sum(-1, keepdim=True) / mask_BT.sum(-1, keepdim=True).clamp(min=1)
    return (mean_B1 >= math.log(low)) & (mean_B1 <= math.log(high))


def mismatch(
    logp_BT: Tensor,
    sampled_logp_BT: Tensor,
    mask_BT: Tensor,
    *,
    token_cap: float | None,
    sequence_band: Sequence[float] | None,
) -> dict[str, float]:
    """How far sampler and policy are apart, over all tokens, and how much of it the correction takes away.

    `drift` and `drift_max` are of |log p − log q|; `ratio_*` of p / q, truncated where there is a cap, masked
    completions included. `masked` is a share of completions, `capped` of tokens.
    """
    log_ratio_BT, counted_BT = log_ratio(logp_BT, sampled_logp_BT, mask_BT), mask_BT != 0
    apart_M, ratio_M = log_ratio_BT[counted_BT].abs(), log_ratio_BT[counted_BT].exp()
    cap = token_cap or math.inf
    is_capped_M, ratio_M = ratio_M > cap, ratio_M.clamp(max=cap)
    masked = 0.0 if sequence_band is None else 1 - mean(in_band(log_ratio_BT, mask_BT, sequence_band))
    return {
        "drift": mean(apart_M),
        "drift_max": apart_M.max().item(),
        "ratio_min": ratio_M.min().item(),
        "ratio_mean": mean(ratio_M),
        "ratio_max": ratio_M.max().item(),
        "masked": masked,
        "capped": mean(is_capped_M),
    }


def mean(values: Tensor) -> float:
    """In float64, so that many tokens add up."""
    return values.double().mean().item()
