"""Advantages: how much better a completion did than its group. N prompts, G completions each, K rewards."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from chainforge.errors import ChainForgeError, unknown

if TYPE_CHECKING:  # settings name a scale, and must not wait for torch
    from torch import Tensor

EPSILON = 1e-4  # added to the standard deviation
TIE = 1e-6  # rewards that differ by less differ by float32 rounding only


def advantages(reward_NG: Tensor, *, scale: str) -> Tensor:
    """Reward minus its group's mean, over the deviation of the group or the batch, shape NG.

    A NaN reward is left out of mean and deviation and gets advantage 0, and so does a group without
    two different rewards. `none` is Dr. GRPO's choice: no division. `maxrl` divides by the group's mean: the
    gradient of log(pass rate) and not of the pass rate, so that hard prompts weigh more.
    Sources: DeepSeekMath, arXiv 2402.03300, section 4.1.2; ddof 1 and the epsilon as in TRL 1.16; MaxRL,
    arXiv 2602.02710.
    """
    if scale not in SCALES:
        raise unknown("advantage scale", scale, SCALES)
    advantage_NG = (reward_NG - reward_NG.nanmean(-1, keepdim=True)) / SCALES[scale](reward_NG)
    nothing_to_compare_NG = reward_NG.isnan() | zero_variance_N(reward_NG)[:, None]
    return advantage_NG.masked_fill(nothing_to_compare_NG, 0.0)


def decoupled_advantages(part_NGK: Tensor, weight_K: Tensor) -> Tensor:
    """GDPO: each reward over the deviation of its own group, weighted, added, scaled by the batch; shape NG.

    So a reward that varies little counts no less than one that varies much. A NaN counts nowhere, and a group
    in which no reward differs gets 0. Source: arXiv 2601.05242; epsilon and ddof as in TRL 1.16.
    """
    own_NGK = (part_NGK - part_NGK.nanmean(1, keepdim=True)) / (deviation(part_NGK, dim=1) + EPSILON)
    own_NGK = own_NGK.masked_fill(part_NGK.isnan() | zero_variance_NK(part_NGK)[:, None], 0.0)
    total_NG = (own_NGK * weight_K).sum(-1).masked_fill(part_NGK.isnan().all(-1), math.nan)
    advantage_NG = (total_NG - total_NG.nanmean()) / (deviation(total_NG.flatten(), dim=-1) + EPSILON)
    nothing_to_compare_NG = total_NG.isnan() | zero_variance_NK(part_NGK).all(-1, keepdim=True)
    return advantage_NG.masked_fill(nothing_to_compare_NG, 0.0)


def zero_variance_NK(part_NGK: Tensor) -> Tensor:
    """`zero_variance_N` of each reward."""
    return zero_variance_N(part_NGK.movedim(1, -1).flatten(0, 1)).view(part_NGK.shape[0], -1)


def zero_variance_N(reward_NG: Tensor) -> Tensor:
    """Which groups teach nothing, shape N, bool: fewer than two valid rewards, or all of them equal."""
    missing_NG = reward_NG.isnan()
    highest_N = reward_NG.masked_fill(missing_NG, -math.inf).amax(-1)
    lowest_N = reward_NG.masked_fill(missing_NG, math.inf).amin(-1)
    return highest_N - lowest_N <= TIE  # no valid reward at all: minus infinity


def positive_mean(reward_NG: Tensor) -> Tensor:
    """The mean of each group. Raises ChainForgeError for a negative reward: less would be more."""
    if (reward_NG < -TIE).any():
        raise ChainForgeError(
            f"scale_rewards maxrl divides by the mean, and a reward is {reward_NG.nan_to_num().min():g}",
            "use rewards of 0 or more with positive weights, or scale_rewards group",
        )
    return reward_NG.nanmean(-1, keepdim=True) + EPSILON


def deviation(values: Tensor, *, dim: int) -> Tensor:
    """The sample standard deviation (ddof 1) of what is not NaN; NaN where fewer than two are left."""
    variance = (values - values.nanmean(dim, keepdim=True)).square().nanmean(dim, keepdim=True)
    count = (~values.isnan()).sum(dim, keepdim=True)
    return (variance * count / (count - 1)).sqrt()


SCALES: Mapping[str, Callable[[Tensor], Tensor | float]] = {
    "group": lambda reward_NG: deviation(reward_NG, dim=-1) + EPSILON,
    "batch": lambda reward_NG: deviation(reward_NG.flatten(), dim=-1) + EPSILON,
    "none": lambda reward_NG: 1.0,
    "maxrl": positive_mean,
}
DECOUPLED = "gdpo"  # its own function: it needs each reward by itself
