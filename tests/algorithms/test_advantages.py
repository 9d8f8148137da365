"""Laws of advantages."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from chainforge.algorithms.advantages import advantages, zero_variance_N
from chainforge.errors import ChainForgeError

SCALES = ("group", "batch", "none")
scales = st.sampled_from(SCALES)
seeds = st.integers(0, 2**31)


def random_rewards(seed: int, *, missing: float = 0.0) -> Tensor:
    """Rewards of 5 prompts, 6 completions each, in tenths; a share of them NaN."""
    generator = torch.Generator().manual_seed(seed)
    reward_NG = torch.randint(0, 11, (5, 6), generator=generator, dtype=torch.float64) / 10
    return reward_NG.masked_fill(torch.rand(5, 6, generator=generator) < missing, torch.nan)


@given(seed=seeds, scale=scales, missing=st.sampled_from((0.0, 0.3, 0.8)))
def test_advantages_of_a_group_sum_to_zero(seed: int, scale: str, missing: float) -> None:
    advantage_NG = advantages(random_rewards(seed, missing=missing), scale=scale)
    torch.testing.assert_close(advantage_NG.sum(-1), torch.zeros(5, dtype=torch.float64), atol=1e-9, rtol=0)


@given(reward=st.floats(-10, 10, width=32), size=st.integers(1, 9), scale=scales)
def test_equal_rewards_give_no_advantage_at_all(reward: float, size: int, scale: str) -> None:
    reward_NG = torch.stack([torch.full((size,), reward), torch.arange(float(size))])
    assert advantages(reward_NG, scale=scale)[0].eq(0).all()


@given(seed=seeds, scale=scales, shift=st.floats(-3, 3))
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


def test_a_spelling_mistake_in_the_scale_is_named() -> None:
    with pytest.raises(ChainForgeError, match="did you mean 'group'"):
        advantages(torch.zeros(1, 2), scale="grup")
