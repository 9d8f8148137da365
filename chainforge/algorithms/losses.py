"""Policy losses. B completions of a micro-batch, T completion tokens, N completions of a whole step.

Padding is wherever `mask_BT` is 0; log-probabilities are in nats. A loss is one row of `LOSSES`: its ratio of
probabilities, its gain per token, the weight of a token, and what the sum over the step is divided by.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from chainforge.algorithms.kl import KL_ESTIMATORS
from chainforge.errors import ChainForgeError, unknown

LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "gspo"]
Stats = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class LossSettings:
    """What a loss needs to know. The names are those of params.yaml."""

    loss_type: LossType
    max_tokens: int  # longest completion that sampling allows; what dr_grpo divides by
    clip_ratio: float  # lowest ratio that still counts is 1 - clip_ratio
    clip_ratio_high: float | None = None  # highest is 1 + this, None: 1 + clip_ratio; cispo: this itself
    dual_clip: float | None = None  # cap on the ratio where the advantage is negative; None: no cap
    kl_coeff: float = 0.0
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    kl_importance_weighted: bool = False  # multiply the KL term by the ratio, with its gradient

    def __post_init__(self) -> None:
        if self.loss_type not in LOSSES:
            raise unknown("loss", self.loss_type, LOSSES)
        if self.kl_estimator not in KL_ESTIMATORS:
            raise unknown("KL estimator", self.kl_estimator, KL_ESTIMATORS)
        if self.loss_type == "cispo" and self.clip_ratio_high is None:
            raise ChainForgeError("cispo needs clip_ratio_high, its cap on the ratio", "set it, e.g. to 5.0")
        if self.loss_type == "cispo" and self.dual_clip is not None:
            raise ChainForgeError("dual_clip has no effect on cispo", "set dual_clip to null")
        if self.dual_clip is not None and self.dual_clip <= self.highest_ratio:
            raise ChainForgeError(
                f"dual_clip {self.dual_clip} is not above {self.highest_ratio}, where clipping starts",
                "set dual_clip above 1 + clip_ratio_high, or to null",
            )

    @property
    def lowest_ratio(self) -> float:
        """Below it the ratio stops to count when the advantage is negative; cispo has no such bound."""
        return 0.0 if self.loss_type == "cispo" else 1 - self.clip_ratio

    @property
    def highest_ratio(self) -> float:
        """Above it the ratio stops to count when the advantage is positive."""
        high = self.clip_ratio if self.clip_ratio_high is None else self.clip_ratio_high
        return high if self.loss_type == "cispo" else 1 + high


class Loss(NamedTuple):
    """One loss, as the functions it is put together from."""

    log_ratio: Callable[[Tensor, Tensor], Tensor]  # (log ratio per token, mask) -> BT, or B1 for a sequence
    gain: Callable[[Tensor, Tensor, Tensor, LossSettings], Tensor]  # (ratio, advantage, logp, settings)
    weight: Callable[[Tensor, LossSettings], Tensor]  # (mask_BT, settings) -> weight_BT
    total: Callable[[Tensor], float]  # mask_NT of the whole step -> what to divide by


def policy_loss(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    ref_logp_BT: Tensor | None,
    advantage_B: Tensor,
    mask_BT: Tensor,
    settings: LossSettings,
) -> tuple[Tensor, Stats]:
    """The negated objective summed over completions, and (sum, count) pairs to log.

    Divide by `loss_denominator` of the whole step: being sums, loss and stats are the same for any size of
    micro-batch. On-policy, `old_logp_BT` is `logp_BT.detach()`. What stands in padding never matters.
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
    stats = clip_stats(ratio_BT, advantage_B1, mask_BT, settings)
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


def clip_stats(ratio_BT: Tensor, advantage_B1: Tensor, mask_BT: Tensor, settings: LossSettings) -> Stats:
    """How often clipping took the gradient away: below (negative advantage), above (positive), either."""
    low_BT = (ratio_BT < settings.lowest_ratio) & (advantage_B1 < 0)
    high_BT = (ratio_BT > settings.highest_ratio) & (advantage_B1 > 0)
    clipped = {"clip_low": low_BT, "clip_high": high_BT, "clip_region": low_BT | high_BT}
    return {
        name: sum_and_count(is_clipped.to(mask_BT.dtype), mask_BT) for name, is_clipped in clipped.items()
    }


def sum_and_count(value_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The sum over what is counted, and its count: tokens, or completions if there is one value for each."""
    counted_BT = mask_BT if value_BT.shape == mask_BT.shape else torch.ones_like(value_BT)
    return torch.stack([(value_BT * counted_BT).sum(), counted_BT.sum()]).detach()


def stat_means(stats: Mapping[str, Tensor]) -> dict[str, float]:
    """Means from the stats of a whole step, which are the sums of those of its micro-batches."""
    return {name: (total / count.clamp(min=1)).item() for name, (total, count) in stats.items()}


def token_log_ratio(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    return log_ratio_BT


def sequence_log_ratio(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """One ratio for all tokens of a completion, their geometric mean, B1. GSPO, arXiv 2507.18071, eq. 7."""
    return (log_ratio_BT * mask_BT).sum(-1, keepdim=True) / mask_BT.sum(-1, keepdim=True).clamp(min=1)


def clipped_gain(ratio_BT: Tensor, advantage_B1: Tensor, logp_BT: Tensor, settings: LossSettings) -> Tensor:
    """PPO's, arXiv 1707.06347, eq. 7; `dual_clip` is that of arXiv 1912.09729."""
    clipped_BT = ratio_BT.clamp(settings.lowest_ratio, settings.highest_ratio)
    capped_BT = ratio_BT if settings.dual_clip is None else ratio_BT.clamp(max=settings.dual_clip)
    return torch.minimum(capped_BT * advantage_B1, clipped_BT * advantage_B1)


def capped_gain(ratio_BT: Tensor, advantage_B1: Tensor, logp_BT: Tensor, settings: LossSettings) -> Tensor:
    """REINFORCE times the capped ratio: no token loses its gradient. MiniMax-M1, arXiv 2506.13585."""
    return ratio_BT.clamp(max=settings.highest_ratio).detach() * advantage_B1 * logp_BT


def per_token(mask_BT: Tensor, settings: LossSettings) -> Tensor:
    """A token weighs 1, so that a long completion weighs more. DAPO, arXiv 2503.14476, section 3.3."""
    return mask_BT


def per_completion(mask_BT: Tensor, settings: LossSettings) -> Tensor:
    """A completion weighs 1 however long it is. DeepSeekMath, arXiv 2402.03300, eq. 3."""
    return mask_BT / mask_BT.sum(-1, keepdim=True).clamp(min=1)


def per_allowed_token(mask_BT: Tensor, settings: LossSettings) -> Tensor:
    """A token weighs the same in every completion and step. Dr. GRPO, arXiv 2503.20783, section 3.2."""
    return mask_BT / settings.max_tokens


def completions(mask_NT: Tensor) -> float:
    return float(mask_NT.shape[0])


def tokens(mask_NT: Tensor) -> float:
    return float(mask_NT.sum())


# bnpo and dapo differ in TRL by the batch whose tokens they count; over the whole step they are one.
LOSSES: Mapping[str, Loss] = {
    "grpo": Loss(token_log_ratio, clipped_gain, per_completion, completions),
    "bnpo": Loss(token_log_ratio, clipped_gain, per_token, tokens),
    "dapo": Loss(token_log_ratio, clipped_gain, per_token, tokens),
    "dr_grpo": Loss(token_log_ratio, clipped_gain, per_allowed_token, completions),
    "cispo": Loss(token_log_ratio, capped_gain, per_token, tokens),
    "gspo": Loss(sequence_log_ratio, clipped_gain, per_completion, completions),
}
