"""Policy losses: one row of `LOSSES` each. B completions of a micro-batch, T completion tokens.

A row is a loss's ratio of probabilities, its gain per token, which tokens count as clipped, the weight of a
token, and what the sum over the step's N completions is divided by. docs/settings.md shows the formula that
begins each function's docstring.
Settings name a loss by its row and must not wait for torch, so this module uses the methods of tensors only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from chainforge.algorithms.kl import KL_ESTIMATORS
from chainforge.errors import ChainForgeError, unknown

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class LossSettings:
    """What a loss needs to know. The names are those of params.yaml."""

    loss_type: str  # a row of LOSSES
    max_new_tokens: int  # longest completion that sampling allows; what dr_grpo divides by
    clip_ratio: float  # lowest ratio that still counts is 1 - clip_ratio
    clip_ratio_high: float | None = None  # highest is 1 + this, None: 1 + clip_ratio; a cap: this itself
    dual_clip: float | None = None  # cap on the ratio where the advantage is negative; None: no cap
    dppo_delta: float = 0.2  # how far a token's probability may move
    sapo_temperature_pos: float = 1.0  # how fast the gradient fades with the ratio, where the advantage is
    sapo_temperature_neg: float = 1.05  # positive, and elsewhere
    kl_coeff: float = 0.0
    kl_estimator: str = "k3"
    kl_importance_weighted: bool = False  # multiply the KL term by the ratio, with its gradient

    def __post_init__(self) -> None:
        if self.loss_type not in LOSSES:
            raise unknown("loss", self.loss_type, LOSSES)
        if self.kl_estimator not in KL_ESTIMATORS:
            raise unknown("KL estimator", self.kl_estimator, KL_ESTIMATORS)
        if self._caps and self.clip_ratio_high is None:
            raise ChainForgeError(
                f"{self.loss_type} needs clip_ratio_high, its cap on the ratio", "set it, e.g. to 5.0"
            )
        if LOSSES[self.loss_type].gain is not clipped_gain and self.dual_clip is not None:
            raise ChainForgeError(f"dual_clip has no effect on {self.loss_type}", "set dual_clip to null")
        if self.dual_clip is not None and self.dual_clip <= self.highest_ratio:
            raise ChainForgeError(
                f"dual_clip {self.dual_clip} is not above {self.highest_ratio}, where clipping starts",
                "set dual_clip above 1 + clip_ratio_high, or to null",
            )

    @property
    def lowest_ratio(self) -> float:
        """Below it the ratio stops to count when the advantage is negative; a cap has no such bound."""
        return 0.0 if self._caps else 1 - self.clip_ratio

    @property
    def highest_ratio(self) -> float:
        """Above it the ratio stops to count when the advantage is positive."""
        high = self.clip_ratio if self.clip_ratio_high is None else self.clip_ratio_high
        return high if self._caps else 1 + high

    @property
    def _caps(self) -> bool:
        return LOSSES[self.loss_type].gain is capped_gain


class Loss(NamedTuple):
    """One loss, as the functions it is put together from, and the paper that proposes it."""

    log_ratio: Callable[[Tensor, Tensor], Tensor]  # (log ratio per token, mask) -> BT, or B1 for a sequence
    gain: Callable[[Tensor, Tensor, Tensor, LossSettings], Tensor]  # (ratio, advantage, logp, settings)
    # (ratio, logp, settings) -> what is too low for a negative advantage, and too high for a positive one
    clipped: Callable[[Tensor, Tensor, LossSettings], tuple[Tensor, Tensor]]
    weight: Callable[[Tensor, LossSettings], Tensor]  # (mask_BT, settings) -> weight_BT
    total: Callable[[Tensor], float]  # mask_NT of the whole step -> what to divide by
    arxiv: str


def token_log_ratio(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """exp(log p − log p_old): one for each token."""
    return log_ratio_BT


def sequence_log_ratio(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """exp(mean over t of log p − log p_old): one per completion, B1. GSPO, arXiv 2507.18071, eq. 7."""
    return (log_ratio_BT * mask_BT).sum(-1, keepdim=True) / mask_BT.sum(-1, keepdim=True).clamp(min=1)


def clipped_gain(ratio_BT: Tensor, advantage_B1: Tensor, logp_BT: Tensor, settings: LossSettings) -> Tensor:
    """min(ρ·A, clip(ρ)·A): PPO's, arXiv 1707.06347, eq. 7; `dual_clip` is that of arXiv 1912.09729."""
    clipped_BT = ratio_BT.clamp(settings.lowest_ratio, settings.highest_ratio)
    capped_BT = ratio_BT if settings.dual_clip is None else ratio_BT.clamp(max=settings.dual_clip)
    return (capped_BT * advantage_B1).minimum(clipped_BT * advantage_B1)


def capped_gain(ratio_BT: Tensor, advantage_B1: Tensor, logp_BT: Tensor, settings: LossSettings) -> Tensor:
    """min(ρ, `clip_ratio_high`)·A·log p, the minimum without gradient: no token loses its gradient.

    REINFORCE times the capped ratio. MiniMax-M1, arXiv 2506.13585.
    """
    return ratio_BT.clamp(max=settings.highest_ratio).detach() * advantage_B1 * logp_BT


def divergence_gain(
    ratio_BT: Tensor, advantage_B1: Tensor, logp_BT: Tensor, settings: LossSettings
) -> Tensor:
    """ρ·A, 0 where clipped: DPPO's, arXiv 2602.04879, with the total variation of a token as its divergence.

    A rare token may grow a hundredfold, and a likely one may not lose half of its probability.
    """
    low_BT, high_BT = divergence_bounds(ratio_BT, logp_BT, settings)
    outside_BT = (low_BT & (advantage_B1 < 0)) | (high_BT & (advantage_B1 > 0))
    return (ratio_BT * advantage_B1).masked_fill(outside_BT, 0.0)


def soft_gain(ratio_BT: Tensor, advantage_B1: Tensor, logp_BT: Tensor, settings: LossSettings) -> Tensor:
    """4/τ·sigmoid(τ·(ρ − 1))·A: SAPO's, arXiv 2511.20347. At ρ = 1 its gradient is that of ρ·A; from there
    it fades. τ is `sapo_temperature_pos` where A > 0, else `sapo_temperature_neg`."""
    negative_B1 = advantage_B1.new_full(advantage_B1.shape, settings.sapo_temperature_neg)
    temperature_B1 = negative_B1.masked_fill(advantage_B1 > 0, settings.sapo_temperature_pos)
    return (temperature_B1 * (ratio_BT - 1)).sigmoid() * 4 / temperature_B1 * advantage_B1


def ratio_bounds(ratio_BT: Tensor, logp_BT: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
    """ρ < 1 − `clip_ratio`, ρ > 1 + `clip_ratio_high`: these two, for advantages below and above 0."""
    return ratio_BT < settings.lowest_ratio, ratio_BT > settings.highest_ratio


def ratio_cap(ratio_BT: Tensor, logp_BT: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
    """ρ > `clip_ratio_high`: there is no lower bound."""
    return ratio_BT < 0, ratio_BT > settings.highest_ratio


def divergence_bounds(ratio_BT: Tensor, logp_BT: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
    """p_old − p > `dppo_delta`, p − p_old > `dppo_delta`: p is a token's probability."""
    ratio_BT, p_BT = ratio_BT.detach(), logp_BT.detach().exp()
    moved_BT = p_BT - p_BT / ratio_BT
    return moved_BT < -settings.dppo_delta, moved_BT > settings.dppo_delta


def no_bounds(ratio_BT: Tensor, logp_BT: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
    """none: the gradient fades instead."""
    return ratio_BT < 0, ratio_BT < 0


def per_token(mask_BT: Tensor, settings: LossSettings) -> Tensor:
    """1: a long completion weighs more. DAPO, arXiv 2503.14476, section 3.3."""
    return mask_BT


def per_completion(mask_BT: Tensor, settings: LossSettings) -> Tensor:
    """1 / n_i: a completion weighs 1 however long it is. DeepSeekMath, arXiv 2402.03300, eq. 3."""
    return mask_BT / mask_BT.sum(-1, keepdim=True).clamp(min=1)


def per_allowed_token(mask_BT: Tensor, settings: LossSettings) -> Tensor:
    """1 / L: a token weighs the same in every completion and step. Dr. GRPO, arXiv 2503.20783, 3.2."""
    return mask_BT / settings.max_new_tokens


def completions(mask_NT: Tensor) -> float:
    """N: the step's completions."""
    return float(mask_NT.shape[0])


def tokens(mask_NT: Tensor) -> float:
    """Σ n_i: the step's completion tokens."""
    return float(mask_NT.sum())


# bnpo and dapo differ in TRL by the batch whose tokens they count; over the whole step they are one.
LOSSES: Mapping[str, Loss] = {
    "grpo": Loss(token_log_ratio, clipped_gain, ratio_bounds, per_completion, completions, "2402.03300"),
    "bnpo": Loss(token_log_ratio, clipped_gain, ratio_bounds, per_token, tokens, "2503.14476"),
    "dr_grpo": Loss(
        token_log_ratio, clipped_gain, ratio_bounds, per_allowed_token, completions, "2503.20783"
    ),
    "dapo": Loss(token_log_ratio, clipped_gain, ratio_bounds, per_token, tokens, "2503.14476"),
    "cispo": Loss(token_log_ratio, capped_gain, ratio_cap, per_token, tokens, "2506.13585"),
    "gspo": Loss(sequence_log_ratio, clipped_gain, ratio_bounds, per_completion, completions, "2507.18071"),
    "dppo": Loss(token_log_ratio, divergence_gain, divergence_bounds, per_token, tokens, "2602.04879"),
    "sapo": Loss(token_log_ratio, soft_gain, no_bounds, per_completion, completions, "2511.20347"),
}
