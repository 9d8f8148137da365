"""Laws of the correction for a sampler that is not quite the policy."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from chainforge.algorithms.importance_sampling import importance_weights, mismatch
from chainforge.algorithms.losses import LOSSES, LossSettings
from chainforge.algorithms.policy_loss import policy_loss

B, T = 6, 5
seeds = st.integers(0, 2**31)
caps = st.sampled_from((None, 0.5, 1.0, 2.0, 10.0))
bands = st.sampled_from((None, (0.99, 1.01), (0.5, 2.0), (1.0, 1.0)))
drifts = st.sampled_from((1e-3, 0.02, 0.5, 30.0))


def random_batch(seed: int, drift: float) -> tuple[Tensor, Tensor, Tensor]:
    """logp_BT, sampled_logp_BT, mask_BT; the last completion is empty."""
    generator = torch.Generator().manual_seed(seed)
    logp_BT = -torch.rand(B, T, generator=generator, dtype=torch.float64) * 4
    sampled_BT = logp_BT + drift * torch.randn(B, T, generator=generator, dtype=torch.float64)
    length_B1 = torch.randint(1, T + 1, (B, 1), generator=generator)
    length_B1[-1] = 0
    return logp_BT, sampled_BT, torch.arange(T) < length_B1


@given(seed=seeds, drift=drifts, cap=caps, band=bands)
def test_a_weight_is_between_0_and_the_cap(seed: int, drift: float, cap: float | None, band: Any) -> None:
    batch = random_batch(seed, drift)
    weight_BT = importance_weights(*batch, token_cap=cap, sequence_band=band)
    assert weight_BT.isfinite().all()
    assert weight_BT.ge(0).all()
    assert weight_BT.le(cap or 1.0).all()
    free_BT = importance_weights(*batch, token_cap=cap, sequence_band=None)
    assert (free_BT > 0).all() or drift == 30.0  # what is 700 nats off underflows
    kept_B = (weight_BT == free_BT).all(-1)
    assert torch.equal(
        weight_BT[~kept_B], torch.zeros_like(weight_BT[~kept_B])
    )  # all of a completion, or nothing


@given(seed=seeds, cap=st.sampled_from((None, 1.0, 2.0)), band=bands)
def test_where_the_sampler_is_the_policy_every_weight_is_one(seed: int, cap: float | None, band: Any) -> None:
    logp_BT, _, mask_BT = random_batch(seed, 1.0)
    weight_BT = importance_weights(logp_BT, logp_BT, mask_BT, token_cap=cap, sequence_band=band)
    assert weight_BT.eq(1).all()


@given(seed=seeds, drift=st.sampled_from((0.01, 0.5)), band=st.sampled_from(((0.99, 1.01), (0.5, 2.0))))
def test_the_order_of_tokens_and_of_completions_does_not_matter(seed: int, drift: float, band: Any) -> None:
    batch = random_batch(seed, drift)
    weight_BT = importance_weights(*batch, token_cap=2.0, sequence_band=band)
    turned = importance_weights(*(x.flip(0, 1) for x in batch), token_cap=2.0, sequence_band=band)
    torch.testing.assert_close(turned.flip(0, 1), weight_BT)


@given(seed=seeds, junk=st.sampled_from((0.0, -7.0, math.nan, -math.inf)))
def test_padding_never_matters(seed: int, junk: float) -> None:
    logp_BT, sampled_BT, mask_BT = random_batch(seed, 0.02)
    bounds: Any = {"token_cap": 2.0, "sequence_band": (0.99, 1.01)}
    dirty = [x.masked_fill(~mask_BT, junk) for x in (logp_BT, sampled_BT)]
    clean = importance_weights(logp_BT, sampled_BT, mask_BT, **bounds)
    torch.testing.assert_close(importance_weights(*dirty, mask_BT, **bounds)[mask_BT], clean[mask_BT])
    assert mismatch(*dirty, mask_BT, **bounds) == mismatch(logp_BT, sampled_BT, mask_BT, **bounds)


def test_a_hand_computed_example() -> None:
    sampled_BT = torch.zeros(3, 2, dtype=torch.float64)
    logp_BT = torch.tensor([[0.3, -0.3], [1.0, 1.0], [0.005, 0.01]], dtype=torch.float64)
    mask_BT = torch.ones(3, 2)
    bounds: Any = {"token_cap": 2.0, "sequence_band": (0.99, 1.01)}
    weight_BT = importance_weights(logp_BT, sampled_BT, mask_BT, **bounds)
    e = math.exp
    expected = torch.tensor([[e(0.3), e(-0.3)], [0.0, 0.0], [e(0.005), e(0.01)]], dtype=torch.float64)
    torch.testing.assert_close(weight_BT, expected)
    assert mismatch(logp_BT, sampled_BT, mask_BT, **bounds) == pytest.approx(
        {
            "drift": 2.615 / 6,
            "drift_max": 1.0,
            "ratio_min": e(-0.3),
            "ratio_mean": (e(0.3) + e(-0.3) + 2 + 2 + e(0.005) + e(0.01)) / 6,
            "ratio_max": 2.0,
            "masked": 1 / 3,
            "capped": 2 / 6,
        }
    )


@pytest.mark.slow
@given(seed=seeds, loss=st.sampled_from(sorted(LOSSES)), drift=st.sampled_from((0.02, 0.5)))
def test_no_gradient_flows_through_a_weight_and_what_is_masked_has_none(
    seed: int, loss: str, drift: float
) -> None:
    """So the gradient is that without a correction, token by token times the weight: nothing else changes."""
    logp_BT, sampled_BT, mask_BT = random_batch(seed, drift)
    settings = LossSettings(loss_type=loss, max_new_tokens=T, clip_ratio=0.2, clip_ratio_high=5.0)
    advantage_B = torch.randn(B, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    leaf_BT = logp_BT.clone().requires_grad_()
    weight_BT = importance_weights(leaf_BT, sampled_BT, mask_BT, token_cap=2.0, sequence_band=(0.99, 1.01))
    assert not weight_BT.requires_grad
    found = []
    for weights in (None, weight_BT):
        value, _ = policy_loss(leaf_BT, logp_BT, None, advantage_B, mask_BT, settings, weights)
        found.append(torch.autograd.grad(value, leaf_BT)[0])
    if loss == "gspo":  # one ratio for a completion: its gradient is the mean of what its tokens give
        mean_B1 = (weight_BT * mask_BT).sum(-1, keepdim=True) / mask_BT.sum(-1, keepdim=True).clamp(min=1)
        weight_BT = mean_B1.expand_as(weight_BT)
    torch.testing.assert_close(found[1], found[0] * weight_BT)


@pytest.mark.slow
@given(seed=seeds)
def test_the_correction_makes_the_gradient_of_another_sampler_that_of_the_policy(seed: int) -> None:
    """Exact over 7 tokens: the mean over what q samples of p / q times the gradient is the mean over p."""
    generator = torch.Generator().manual_seed(seed)
    logit_V, other_V, reward_V = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    logit_V.requires_grad_()
    logp_V, logq_V = logit_V.log_softmax(-1), other_V.log_softmax(-1)
    settings = LossSettings(loss_type="dapo", max_new_tokens=1, clip_ratio=0.2)
    columns = [x[:, None] for x in (logp_V, logq_V, torch.ones(7))]
    weight_V1 = importance_weights(*columns, token_cap=1e9, sequence_band=None)

    def gradient(sampling_V: Tensor, weights: Tensor | None) -> Tensor:
        advantage_V = reward_V * sampling_V.detach()  # the chance of each token, as an expectation has it
        value, _ = policy_loss(
            columns[0], columns[0].detach(), None, advantage_V, columns[2], settings, weights
        )
        return torch.autograd.grad(value, logit_V, retain_graph=True)[0]

    truth_V = gradient(logp_V.exp(), None)
    torch.testing.assert_close(gradient(logq_V.exp(), weight_V1), truth_V)
    assert not torch.allclose(gradient(logq_V.exp(), None), truth_V)
