"""Laws of advantages."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from chainforge.algorithms.advantages import advantages, decoupled_advantages, zero_variance_N
from chainforge.errors import ChainForgeError

SCALES = ("group", "batch", "none", "maxrl")
scales = st.sampled_from(SCALES)
seeds = st.integers(0, 2**31)


def random_rewards(seed: int, *, missing: float = 0.0) -> Tensor:
    """Rewards of 5 prompts, 6 completions each, in tenths; a share of them NaN."""
    generator = torch.Generator().manual_seed(seed)
    reward_NG = torch.randint(0, 11, (5, 6), generator=generator, dtype=torch.float64) / 10
    return reward_NG.masked_fill(torch.rand(5, 6, generator=generator) < missing, torch.nan)


@pytest.mark.slow
@given(seed=seeds, scale=scales, missing=st.sampled_from((0.0, 0.3, 0.8)))
def test_advantages_of_a_group_sum_to_zero(seed: int, scale: str, missing: float) -> None:
    advantage_NG = advantages(random_rewards(seed, missing=missing), scale=scale)
    torch.testing.assert_close(advantage_NG.sum(-1), torch.zeros(5, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.slow
@given(reward=st.floats(0, 10, width=32), size=st.integers(1, 9), scale=scales)
def test_equal_rewards_give_no_advantage_at_all(reward: float, size: int, scale: str) -> None:
    reward_NG = torch.stack([torch.full((size,), reward), torch.arange(float(size))])
    assert advantages(reward_NG, scale=scale)[0].eq(0).all()


@pytest.mark.slow
@given(seed=seeds, scale=st.sampled_from(("group", "batch", "none")), shift=st.floats(-3, 3))
def test_shifting_all_rewards_of_a_group_changes_nothing(seed: int, scale: str, shift: float) -> None:
    reward_NG = random_rewards(seed, missing=0.2)
    shifted_NG = reward_NG + shift * torch.arange(5)[:, None] if scale != "batch" else reward_NG + shift
    torch.testing.assert_close(advantages(shifted_NG, scale=scale), advantages(reward_NG, scale=scale))


@given(seed=seeds, scale=scales)
def test_order_within_a_group_and_among_groups_does_not_matter(seed: int, scale: str) -> None:
    reward_NG = random_rewards(seed, missing=0.2)
    turned = advantages(reward_NG.flip(0, 1), scale=scale).flip(0, 1)
    torch.testing.assert_close(turned, advantages(reward_NG, scale=scale))


@given(seed=seeds, scale=scales)
def test_a_missing_reward_is_as_if_the_completion_were_not_there(seed: int, scale: str) -> None:
    reward_NG = random_rewards(seed)
    with_hole_NG = torch.cat([reward_NG, torch.full((5, 1), torch.nan, dtype=torch.float64)], dim=1)
    advantage_NG = advantages(with_hole_NG, scale=scale)
    assert advantage_NG[:, -1].eq(0).all()
    torch.testing.assert_close(advantage_NG[:, :-1], advantages(reward_NG, scale=scale))


@given(seed=seeds)
def test_group_scaling_gives_every_group_a_deviation_of_one(seed: int) -> None:
    reward_NG = random_rewards(seed)
    advantage_NG = advantages(reward_NG, scale="group")[~zero_variance_N(reward_NG)]
    torch.testing.assert_close(advantage_NG.std(-1), torch.ones_like(advantage_NG[:, 0]), atol=4e-3, rtol=0)


def test_scales_of_a_hand_computed_example() -> None:
    reward_NG = torch.tensor([[1.0, 0.0, 0.0, 1.0], [3.0, 3.0, 3.0, 3.0]], dtype=torch.float64)
    assert advantages(reward_NG, scale="none")[0].tolist() == [0.5, -0.5, -0.5, 0.5]
    group = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    assert advantages(reward_NG, scale="group")[0].tolist() == pytest.approx([group, -group, -group, group])
    batch = 0.5 / (math.sqrt((2 * 0.75**2 + 2 * 1.75**2 + 4 * 1.25**2) / 7) + 1e-4)
    assert advantages(reward_NG, scale="batch")[0].tolist() == pytest.approx([batch, -batch, -batch, batch])
    assert advantages(reward_NG, scale="batch")[1].tolist() == [0.0] * 4


@pytest.mark.parametrize("scale", SCALES)
def test_a_group_with_one_valid_reward_or_none_gets_no_advantage(scale: str) -> None:
    nan = math.nan
    reward_NG = torch.tensor([[nan, 0.7, nan], [nan, nan, nan], [0.0, 1.0, nan]])
    advantage_NG = advantages(reward_NG, scale=scale)
    assert advantage_NG[:2].eq(0).all()
    assert advantage_NG[2, 1] > 0 > advantage_NG[2, 0]
    assert zero_variance_N(reward_NG).tolist() == [True, True, False]


@pytest.mark.slow
@given(seed=seeds, factor=st.floats(0.1, 9))
def test_maxrl_weighs_a_group_by_one_over_its_pass_rate(seed: int, factor: float) -> None:
    """So a right answer to a hard prompt pulls as much as all the right answers to an easy one."""
    right_NG = (random_rewards(seed) > 0.6).double()
    advantage_NG = advantages(right_NG, scale="maxrl")
    rate_N1 = right_NG.mean(-1, keepdim=True)
    expected_NG = (right_NG - rate_N1) / (rate_N1 + 1e-4)
    torch.testing.assert_close(advantage_NG, expected_NG.masked_fill(zero_variance_N(right_NG)[:, None], 0.0))
    scaled_NG = advantages(factor * right_NG, scale="maxrl")
    torch.testing.assert_close(scaled_NG, advantage_NG, rtol=0.01, atol=0)  # but for the epsilon


def test_maxrl_refuses_a_negative_reward() -> None:
    with pytest.raises(ChainForgeError, match=r"divides by the mean, and a reward is -0\.5"):
        advantages(torch.tensor([[1.0, -0.5], [math.nan, 0.0]]), scale="maxrl")


def random_parts(seed: int, missing: float) -> Tensor:
    """Three rewards of very different size."""
    sizes_K = torch.tensor([1.0, 10.0, 0.01], dtype=torch.float64)
    return torch.stack([random_rewards(seed + k, missing=missing) for k in range(3)], -1) * sizes_K


weights_K = torch.tensor([1.0, 0.5, -2.0], dtype=torch.float64)


@pytest.mark.slow
@given(seed=seeds, missing=st.sampled_from((0.0, 0.3)), size=st.floats(0.5, 1e4), shift=st.floats(-3, 3))
def test_gdpo_does_not_care_how_large_a_reward_is(
    seed: int, missing: float, size: float, shift: float
) -> None:
    part_NGK = random_parts(seed, missing)
    other_NGK = part_NGK.clone()
    other_NGK[..., 0] = size * part_NGK[..., 0] + shift
    ours, others = (decoupled_advantages(parts, weights_K) for parts in (part_NGK, other_NGK))
    torch.testing.assert_close(others, ours, rtol=0.01, atol=0.02)  # but for the epsilon


@pytest.mark.slow
@given(seed=seeds, missing=st.sampled_from((0.0, 0.3, 0.9)))
def test_gdpo_depends_on_no_order_and_gives_what_does_not_apply_nothing(seed: int, missing: float) -> None:
    part_NGK = random_parts(seed, missing)
    advantage_NG = decoupled_advantages(part_NGK, weights_K)
    turned_NG = decoupled_advantages(part_NGK.flip(0, 1, 2), weights_K.flip(0)).flip(0, 1)
    torch.testing.assert_close(turned_NG, advantage_NG)
    assert advantage_NG[part_NGK.isnan().all(-1)].eq(0).all()


def test_gdpo_tells_apart_what_a_sum_does_not() -> None:
    """A group with (1, 0) and (0, 1) has equal sums; with GDPO the rewards still count, by their weights."""
    part_NGK = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])
    advantage_NG = decoupled_advantages(part_NGK, torch.tensor([1.0, 0.5]))
    assert advantage_NG[0, 0] > 0 > advantage_NG[0, 1]
    assert advantage_NG[1].tolist() == [0.0, 0.0]
    deviation = math.sqrt(0.5)  # of (1, 0), with n - 1
    first = 0.5 * 0.5 / (deviation + 1e-4)  # the weights' difference, times half
    spread = math.sqrt(2 * first**2 / 3)
    assert advantage_NG[0, 0].item() == pytest.approx(first / (spread + 1e-4))


def test_a_spelling_mistake_in_the_scale_is_named() -> None:
    with pytest.raises(ChainForgeError, match="did you mean 'group'"):
        advantages(torch.zeros(1, 2), scale="grup")
