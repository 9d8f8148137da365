"""Laws of the policy losses and of the KL estimates."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from chainforge.algorithms.kl import KL_ESTIMATORS
from chainforge.algorithms.losses import LOSSES, LossSettings
from chainforge.algorithms.policy_loss import loss_denominator, policy_loss, stat_means
from chainforge.errors import ChainForgeError

pytestmark = pytest.mark.slow

B, T = 6, 5
seeds = st.integers(0, 2**31)
losses = st.sampled_from(sorted(LOSSES))
estimators = st.sampled_from(sorted(KL_ESTIMATORS))


def settings_of(loss_type: str, **changes: Any) -> LossSettings:
    high = 1.5 if loss_type == "cispo" else 0.3
    settings = LossSettings(
        loss_type=loss_type, clip_ratio=0.2, clip_ratio_high=high, max_new_tokens=8, kl_coeff=0.1
    )
    return replace(settings, **changes)


def random_batch(seed: int, B: int = B, T: int = T) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """logp_BT (a leaf), old_logp_BT, ref_logp_BT, advantage_B and mask_BT; the last completion is empty."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(4, B, T, generator=generator, dtype=torch.float64)
    logp_BT = random[0] - 2
    length_B1 = torch.randint(1, T + 1, (B, 1), generator=generator)
    length_B1[-1] = 0
    mask_BT = torch.arange(T) < length_B1
    return logp_BT.requires_grad_(), random[0] - 2 + random[1] / 3, random[2] - 2, random[3, :, 0], mask_BT


def loss_and_grad(batch: tuple[Tensor, ...], settings: LossSettings) -> tuple[Tensor, Tensor]:
    logp_BT, old_logp_BT, ref_logp_BT, advantage_B, mask_BT = batch
    leaf_BT = logp_BT.detach().requires_grad_()
    loss, _ = policy_loss(leaf_BT, old_logp_BT, ref_logp_BT, advantage_B, mask_BT, settings)
    (grad_BT,) = torch.autograd.grad(loss, leaf_BT)
    return loss.detach(), grad_BT


@given(seed=seeds, loss=losses, estimator=estimators, weighted=st.booleans(), cut=st.integers(1, B - 1))
def test_loss_gradient_and_stats_do_not_depend_on_the_micro_batch_size(
    seed: int, loss: str, estimator: str, weighted: bool, cut: int
) -> None:
    settings = settings_of(loss, kl_estimator=estimator, kl_importance_weighted=weighted)
    batch = random_batch(seed)
    parts = [tuple(x[part] for x in batch) for part in (slice(cut), slice(cut, B))]
    whole, whole_grad_BT = loss_and_grad(batch, settings)
    cut_losses, cut_grads = zip(*(loss_and_grad(part, settings) for part in parts), strict=True)
    torch.testing.assert_close(sum(cut_losses), whole)
    torch.testing.assert_close(torch.cat(cut_grads), whole_grad_BT)
    _, stats = policy_loss(*batch, settings)
    cut_stats = [policy_loss(*part, settings)[1] for part in parts]
    for name, total in stats.items():
        torch.testing.assert_close(sum(part[name] for part in cut_stats), total)


@given(
    seed=seeds,
    loss=losses,
    extra=st.integers(0, 4),
    junk=st.sampled_from((0.0, -7.0, float("nan"), -torch.inf)),
)
def test_padding_never_changes_loss_gradient_or_divisor(
    seed: int, loss: str, extra: int, junk: float
) -> None:
    settings = settings_of(loss)
    *logps, advantage_B, mask_BT = random_batch(seed)
    padded_mask_BT = torch.nn.functional.pad(mask_BT, (0, extra))
    padded = [torch.nn.functional.pad(x, (0, extra)).masked_fill(~padded_mask_BT, junk) for x in logps]
    plain, plain_grad_BT = loss_and_grad((*logps, advantage_B, mask_BT), settings)
    other, other_grad_BT = loss_and_grad((*padded, advantage_B, padded_mask_BT), settings)
    torch.testing.assert_close(other, plain)
    torch.testing.assert_close(other_grad_BT[:, :T], plain_grad_BT)
    assert other_grad_BT[~padded_mask_BT].eq(0).all()
    assert loss_denominator(settings, padded_mask_BT) == loss_denominator(settings, mask_BT)


@given(seed=seeds, loss=losses)
def test_on_policy_all_losses_follow_the_policy_gradient(seed: int, loss: str) -> None:
    logp_BT, _, _, advantage_B, mask_BT = random_batch(seed)
    settings = settings_of(loss, kl_coeff=0.0)
    value, _ = policy_loss(logp_BT, logp_BT.detach(), None, advantage_B, mask_BT, settings)
    (grad_BT,) = torch.autograd.grad(value, logp_BT)
    weight_BT = {
        "grpo": mask_BT / mask_BT.sum(-1, keepdim=True).clamp(min=1),
        "gspo": mask_BT / mask_BT.sum(-1, keepdim=True).clamp(min=1),
        "sapo": mask_BT / mask_BT.sum(-1, keepdim=True).clamp(min=1),
        "dr_grpo": mask_BT / 8,
    }.get(loss, mask_BT.double())
    torch.testing.assert_close(grad_BT, -advantage_B[:, None] * weight_BT, check_dtype=False)


@given(seed=seeds, loss=losses)
def test_no_advantage_and_no_kl_means_no_gradient(seed: int, loss: str) -> None:
    logp_BT, old_logp_BT, _, advantage_B, mask_BT = random_batch(seed)
    settings = settings_of(loss, kl_coeff=0.0)
    value, stats = policy_loss(logp_BT, old_logp_BT, None, 0 * advantage_B, mask_BT, settings)
    assert value == 0
    assert torch.autograd.grad(value, logp_BT)[0].eq(0).all()
    assert stat_means(stats) == {"clip_low": 0.0, "clip_high": 0.0, "clip_region": 0.0}


def test_completion_weights_one_however_long_in_grpo_and_by_length_in_dapo() -> None:
    mask_BT = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1]])
    for loss, expected in {"grpo": [1, 1], "gspo": [1, 1], "dr_grpo": [1 / 8, 4 / 8], "dapo": [1, 4]}.items():
        weight_BT = LOSSES[loss].weight(mask_BT, settings_of(loss))
        assert weight_BT.sum(-1).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_divisor_counts_completions_or_tokens_and_is_never_zero(loss: str) -> None:
    mask_NT = torch.tensor([[1, 0, 0], [1, 1, 1], [0, 0, 0]])
    expected = 4 if loss in {"bnpo", "dapo", "cispo", "dppo"} else 3
    assert loss_denominator(settings_of(loss), mask_NT) == expected
    assert loss_denominator(settings_of(loss), torch.zeros(1, 3)) == 1


@given(seed=seeds)
def test_gspo_gives_all_tokens_of_a_completion_one_ratio(seed: int) -> None:
    *batch, mask_BT = random_batch(seed)
    _, grad_BT = loss_and_grad((*batch, mask_BT), settings_of("gspo", kl_coeff=1e-30))
    per_token_BT = grad_BT * mask_BT.sum(-1, keepdim=True)
    highest_B = per_token_BT.masked_fill(~mask_BT, -torch.inf).amax(-1)
    lowest_B = per_token_BT.masked_fill(~mask_BT, torch.inf).amin(-1)
    torch.testing.assert_close(highest_B[:-1], lowest_B[:-1])  # the last completion is empty


@given(seed=seeds, loss=st.sampled_from(("grpo", "bnpo", "dr_grpo", "dapo")))
def test_outside_of_the_clip_range_the_gradient_is_gone(seed: int, loss: str) -> None:
    logp_BT, old_logp_BT, _, advantage_B, mask_BT = random_batch(seed)
    settings = settings_of(loss, kl_coeff=0.0)
    value, stats = policy_loss(logp_BT, old_logp_BT, None, advantage_B, mask_BT, settings)
    gone_BT = mask_BT & torch.autograd.grad(value, logp_BT)[0].eq(0)
    ratio_BT = (logp_BT - old_logp_BT).exp()
    low_BT = mask_BT & (ratio_BT < 0.8) & (advantage_B < 0)[:, None]
    high_BT = mask_BT & (ratio_BT > 1.3) & (advantage_B > 0)[:, None]
    assert torch.equal(gone_BT, low_BT | high_BT)
    expected = {"clip_low": low_BT, "clip_high": high_BT, "clip_region": gone_BT}
    assert stat_means(stats) == {
        name: pytest.approx((x.sum() / mask_BT.sum()).item()) for name, x in expected.items()
    }


@given(seed=seeds, loss=st.sampled_from(("grpo", "dapo", "gspo")), dual_clip=st.floats(1.31, 5))
def test_dual_clip_bounds_the_loss_and_leaves_positive_advantages_alone(
    seed: int, loss: str, dual_clip: float
) -> None:
    logp_BT, _, _, advantage_B, mask_BT = random_batch(seed, T=1)
    old_logp_BT = torch.where(advantage_B[:, None] > 0, logp_BT.detach(), logp_BT.detach() - 3)
    batch = logp_BT, old_logp_BT, None, advantage_B, mask_BT
    single = settings_of(loss, kl_coeff=0.0)
    open_loss, open_grad_BT = loss_and_grad(batch, single)
    capped_loss, capped_grad_BT = loss_and_grad(batch, replace(single, dual_clip=dual_clip))
    negative_B = (advantage_B < 0) & mask_BT[:, 0]
    bound = -dual_clip * advantage_B[negative_B].sum() - advantage_B[~negative_B & mask_BT[:, 0]].sum()
    torch.testing.assert_close(capped_loss, bound)
    assert capped_loss <= open_loss
    assert capped_grad_BT[negative_B].eq(0).all()
    torch.testing.assert_close(capped_grad_BT[~negative_B], open_grad_BT[~negative_B])


@given(seed=seeds)
def test_cispo_keeps_the_gradient_of_every_token_and_caps_its_size(seed: int) -> None:
    logp_BT, old_logp_BT, _, advantage_B, mask_BT = random_batch(seed)
    settings = settings_of("cispo", kl_coeff=0.0, clip_ratio_high=1.1)
    value, stats = policy_loss(logp_BT, old_logp_BT, None, advantage_B, mask_BT, settings)
    weight_BT = -torch.autograd.grad(value, logp_BT)[0] / advantage_B[:, None]
    torch.testing.assert_close(weight_BT, (logp_BT - old_logp_BT).exp().detach().clamp(max=1.1) * mask_BT)
    assert stats["clip_low"][0] == 0


@given(seed=seeds, delta=st.sampled_from((1e-3, 0.02, 0.2)))
def test_dppo_is_the_plain_policy_gradient_until_a_probability_has_moved_by_delta(
    seed: int, delta: float
) -> None:
    logp_BT, old_logp_BT, _, advantage_B, mask_BT = random_batch(seed)
    logp_BT = logp_BT.detach().clamp(max=0).requires_grad_()
    old_logp_BT = old_logp_BT.clamp(max=0)
    settings = settings_of("dppo", kl_coeff=0.0, dppo_delta=delta)
    value, stats = policy_loss(logp_BT, old_logp_BT, None, advantage_B, mask_BT, settings)
    (grad_BT,) = torch.autograd.grad(value, logp_BT)
    moved_BT = (logp_BT.exp() - old_logp_BT.exp()).detach()
    away_BT = torch.where(advantage_B[:, None] > 0, moved_BT > delta, moved_BT < -delta) & mask_BT
    plain_BT = -(logp_BT - old_logp_BT).exp().detach() * advantage_B[:, None] * mask_BT
    torch.testing.assert_close(grad_BT, plain_BT.masked_fill(away_BT, 0.0))
    assert stat_means(stats)["clip_region"] == pytest.approx((away_BT.sum() / mask_BT.sum()).item())


@given(seed=seeds, positive=st.sampled_from((0.5, 1.0, 3.0)), negative=st.sampled_from((0.5, 1.05, 3.0)))
def test_the_gradient_of_sapo_is_that_of_the_ratio_at_one_and_fades_from_there(
    seed: int, positive: float, negative: float
) -> None:
    """With p(ρ) = sigmoid(τ(ρ − 1)), the slope of the gain is 4·p·(1 − p)·A: the paper's form of it."""
    logp_BT, old_logp_BT, _, advantage_B, mask_BT = random_batch(seed, T=1)
    settings = settings_of("sapo", kl_coeff=0.0, sapo_temperature_pos=positive, sapo_temperature_neg=negative)
    value, stats = policy_loss(logp_BT, old_logp_BT, None, advantage_B, mask_BT, settings)
    (grad_BT,) = torch.autograd.grad(value, logp_BT)
    ratio_BT = (logp_BT - old_logp_BT).exp().detach()
    temperature_B1 = torch.where(advantage_B > 0, positive, negative)[:, None].double()
    gate_BT = torch.sigmoid(temperature_B1 * (ratio_BT - 1))
    slope_BT = 4 * gate_BT * (1 - gate_BT) * advantage_B[:, None]
    torch.testing.assert_close(grad_BT, -slope_BT * ratio_BT * mask_BT)
    assert (slope_BT.abs() <= advantage_B.abs()[:, None]).all()
    assert stats["clip_region"][0] == 0


@given(seed=seeds)
def test_without_a_high_clip_the_low_one_is_used_on_both_sides(seed: int) -> None:
    batch = random_batch(seed)
    both = loss_and_grad(batch, settings_of("grpo", clip_ratio_high=0.2))
    none = loss_and_grad(batch, settings_of("grpo", clip_ratio_high=None))
    torch.testing.assert_close(both, none)


@given(
    seed=seeds,
    size=st.sampled_from((1e-6, 1e-3, 1.0, 20.0)),
    dtype=st.sampled_from((torch.float32, torch.float64)),
)
def test_k2_and_k3_are_never_negative(seed: int, size: float, dtype: torch.dtype) -> None:
    log_ref_ratio = torch.randn(1000, generator=torch.Generator().manual_seed(seed), dtype=dtype) * size
    assert KL_ESTIMATORS["k2"](log_ref_ratio).ge(0).all()
    assert KL_ESTIMATORS["k3"](log_ref_ratio).ge(0).all()


@given(estimator=estimators)
def test_a_policy_that_equals_its_reference_has_no_kl(estimator: str) -> None:
    assert KL_ESTIMATORS[estimator](torch.zeros(3)).eq(0).all()


def expectation(seed: int, estimator: str, weighted: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean estimate and mean gradient on-policy, exact over 7 tokens; the true KL and its gradient."""
    logit_V, ref_logit_V = torch.randn(
        2, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    logp_V, ref_logp_V = logit_V.requires_grad_().log_softmax(-1), ref_logit_V.log_softmax(-1)
    sampling_V = logp_V.detach().exp()
    kl_V = KL_ESTIMATORS[estimator](ref_logp_V - logp_V)
    kl_V = kl_V * (logp_V - logp_V.detach()).exp() if weighted else kl_V
    estimate, truth = (sampling_V * kl_V).sum(), (logp_V.exp() * (logp_V - ref_logp_V)).sum()
    gradients = [torch.autograd.grad(value, logit_V, retain_graph=True)[0] for value in (estimate, truth)]
    return estimate.detach(), gradients[0], truth.detach(), gradients[1]


@given(seed=seeds, estimator=st.sampled_from(("k1", "k3")), weighted=st.booleans())
def test_k1_and_k3_are_unbiased(seed: int, estimator: str, weighted: bool) -> None:
    estimate, _, truth, _ = expectation(seed, estimator, weighted)
    torch.testing.assert_close(estimate, truth)


@given(seed=seeds, case=st.sampled_from((("k1", True), ("k2", False), ("k3", True))))
def test_these_kl_terms_have_the_gradient_of_the_true_kl(seed: int, case: tuple[str, bool]) -> None:
    _, gradient_V, _, true_gradient_V = expectation(seed, *case)
    torch.testing.assert_close(gradient_V, true_gradient_V)


@given(seed=seeds)
def test_k1_as_a_plain_loss_pulls_nowhere(seed: int) -> None:
    _, gradient_V, _, _ = expectation(seed, "k1", weighted=False)
    torch.testing.assert_close(gradient_V, torch.zeros_like(gradient_V))


@given(seed=seeds, loss=losses, estimator=estimators)
def test_kl_coefficient_multiplies_the_logged_kl(seed: int, loss: str, estimator: str) -> None:
    logp_BT, old_logp_BT, ref_logp_BT, advantage_B, mask_BT = random_batch(seed)
    batch = logp_BT, old_logp_BT, ref_logp_BT, 0 * advantage_B, mask_BT
    settings = settings_of(loss, kl_estimator=estimator, kl_coeff=0.5)
    value, stats = policy_loss(*batch, settings)
    kl_BT = KL_ESTIMATORS[estimator](ref_logp_BT - logp_BT)
    torch.testing.assert_close(value, 0.5 * (kl_BT * LOSSES[loss].weight(mask_BT, settings)).sum())
    assert stat_means(stats)["kl"] == pytest.approx(kl_BT[mask_BT].mean().item())


@pytest.mark.parametrize("kl_coeff", [0.0, 0.1])
def test_reference_and_kl_coefficient_come_together_or_not_at_all(kl_coeff: float) -> None:
    logp_BT, old_logp_BT, ref_logp_BT, advantage_B, mask_BT = random_batch(0)
    wrong_ref_BT = ref_logp_BT if kl_coeff == 0 else None
    with pytest.raises(ChainForgeError, match="kl_coeff is"):
        policy_loss(
            logp_BT, old_logp_BT, wrong_ref_BT, advantage_B, mask_BT, settings_of("grpo", kl_coeff=kl_coeff)
        )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"loss_type": "grpo2"}, "did you mean 'grpo'"),
        ({"kl_estimator": "k4"}, "no KL estimator"),
        ({"loss_type": "cispo", "clip_ratio_high": None}, "cispo needs clip_ratio_high"),
        ({"loss_type": "cispo", "dual_clip": 3.0}, "no effect on cispo"),
        ({"loss_type": "dppo", "dual_clip": 3.0}, "no effect on dppo"),
        ({"loss_type": "sapo", "dual_clip": 3.0}, "no effect on sapo"),
        ({"dual_clip": 1.3}, "not above 1.3"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ChainForgeError, match=problem):
        replace(settings_of("grpo"), **changes)
