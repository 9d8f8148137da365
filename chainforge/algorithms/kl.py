"""KL divergences in nats: of a policy to its reference, and of a student to its teacher.

The estimates k1 to k3 of KL(policy || reference) take the log of reference over policy at one token that the
policy sampled. Source: J. Schulman, "Approximating KL divergence", joschu.net/blog/kl-approx.html.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # settings name an estimator, and must not wait for torch
    from torch import Tensor


def k1(log_ref_ratio: Tensor) -> Tensor:
    """Unbiased, of either sign. As a loss it pulls nowhere on average, unless importance weighted."""
    return -log_ref_ratio


def k2(log_ref_ratio: Tensor) -> Tensor:
    """Biased, never negative. Its gradient is that of the true KL on average, if on-policy."""
    return log_ref_ratio.square() / 2


def k3(log_ref_ratio: Tensor) -> Tensor:
    """Unbiased, never negative. GRPO's estimate: DeepSeekMath, arXiv 2402.03300, eq. 4."""
    return log_ref_ratio.expm1() - log_ref_ratio


KL_ESTIMATORS: Mapping[str, Callable[[Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}


def forward_kl(logp_student_MV: Tensor, logp_teacher_MV: Tensor) -> Tensor:
    """KL(teacher || student) in nats, summed over M tokens; V vocabulary. The student covers all that the
    teacher might say.

    Source: Hinton et al., arXiv 1503.02531, at temperature 1, per token.
    """
    return (logp_teacher_MV.exp() * (logp_teacher_MV - logp_student_MV)).sum()


def reverse_kl(logp_student_MV: Tensor, logp_teacher_MV: Tensor) -> Tensor:
    """KL(student || teacher), likewise. The student leaves out what the teacher would not say.

    Source: MiniLLM, arXiv 2306.08543, section 2.1.
    """
    return forward_kl(logp_teacher_MV, logp_student_MV)


def jsd(logp_student_MV: Tensor, logp_teacher_MV: Tensor) -> Tensor:
    """The Jensen-Shannon divergence, likewise: half of the KL of each to the mean of both, at most ln 2.

    Source: GKD, arXiv 2306.13649, eq. 1 with beta = 1/2.
    """
    logp_mean_MV = logp_student_MV.logaddexp(logp_teacher_MV) - log(2)
    return (forward_kl(logp_mean_MV, logp_student_MV) + forward_kl(logp_mean_MV, logp_teacher_MV)) / 2


DIVERGENCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "forward-kl": forward_kl,
    "reverse-kl": reverse_kl,
    "jsd": jsd,
}
