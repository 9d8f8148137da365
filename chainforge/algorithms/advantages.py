"""Advantages: how much better a completion did than its group. N prompts, G completions each, K rewards."""

from typing import Literal

import torch
from torch import Tensor

from chainforge.errors import ChainForgeError, unknown

Scale = Literal["group", "batch", "none"]

EPSILON = 1e-4  # added to the standard deviation
TIE = 1e-6  # rewards that differ by less differ by float32 rounding only


def combine_rewards(parts_NGK: Tensor, weights_K: Tensor) -> Tensor:
    """The weighted sum over rewards, shape NG. A NaN part does not apply and is left out; all NaN -> NaN."""
    if parts_NGK.isinf().any():
        raise ChainForgeError("a reward is infinite", "let the reward return a number between 0 and 1")
    total_NG = (parts_NGK * weights_K).nansum(-1)
    return total_NG.masked_fill(parts_NGK.isnan().all(-1), torch.nan)


def advantages(reward_NG: Tensor, *, scale: Scale) -> Tensor:
    """Reward minus its group's mean, over the deviation of the group or the batch, shape NG.

    A NaN reward is left out of mean and deviation and gets advantage 0, and so does a group without
    two different rewards. `none` is Dr. GRPO's choice: no division.
    Source: DeepSeekMath, arXiv 2402.03300, section 4.1.2; ddof 1 and the epsilon as in TRL 1.16.
    """
    spreads = {
        "group": lambda: deviation(reward_NG, dim=-1) + EPSILON,
        "batch": lambda: deviation(reward_NG.flatten(), dim=-1) + EPSILON,
        "none": lambda: torch.ones_like(reward_NG),
    }
    if scale not in spreads:
        raise unknown("advantage scale", scale, spreads)
    advantage_NG = (reward_NG - reward_NG.nanmean(-1, keepdim=True)) / spreads[scale]()
    nothing_to_compare_NG = reward_NG.isnan() | zero_variance_N(reward_NG)[:, None]
    return advantage_NG.masked_fill(nothing_to_compare_NG, 0.0)


def zero_variance_N(reward_NG: Tensor) -> Tensor:
    """Which groups teach nothing, shape N, bool: fewer than two valid rewards, or all of them equal."""
    missing_NG = reward_NG.isnan()
    highest_N = reward_NG.masked_fill(missing_NG, -torch.inf).amax(-1)
    lowest_N = reward_NG.masked_fill(missing_NG, torch.inf).amin(-1)
    return highest_N - lowest_N <= TIE  # no valid reward at all: minus infinity


def deviation(values: Tensor, *, dim: int) -> Tensor:
    """The sample standard deviation (ddof 1) of what is not NaN; NaN where fewer than two are left."""
    variance = (values - values.nanmean(dim, keepdim=True)).square().nanmean(dim, keepdim=True)
    count = (~values.isnan()).sum(dim, keepdim=True)
    return (variance * count / (count - 1)).sqrt()
