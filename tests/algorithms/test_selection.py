"""Laws of rejection sampling."""

import math
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.algorithms.selection import select
from chainforge.errors import ChainForgeError

samples = st.lists(
    st.tuples(st.sampled_from((0.0, 0.5, 1.0, math.nan)), st.text("ab \n", max_size=4)), max_size=12
)
quotas = st.integers(1, 4)


def chosen(samples: list[tuple[float, str]], keep: int) -> tuple[list[int], dict[str, int]]:
    rewards, texts = [reward for reward, _ in samples], [text for _, text in samples]
    return select(rewards, texts, min_reward=0.5, keep=keep, policy="distinct")


@pytest.mark.slow
@given(samples=samples, keep=quotas)
def test_every_completion_is_kept_or_dropped_for_one_reason(
    samples: list[tuple[float, str]], keep: int
) -> None:
    kept, dropped = chosen(samples, keep)
    assert set(dropped) == {"low_reward", "duplicate", "over_quota"}
    assert len(kept) + sum(dropped.values()) == len(samples)
    assert dropped["low_reward"] == sum(not reward >= 0.5 for reward, _ in samples)


@given(samples=samples, keep=quotas)
def test_what_is_kept_is_good_distinct_and_within_the_quota(
    samples: list[tuple[float, str]], keep: int
) -> None:
    kept, dropped = chosen(samples, keep)
    assert len(kept) <= keep
    assert all(samples[i][0] >= 0.5 for i in kept)
    assert len({" ".join(samples[i][1].split()) for i in kept}) == len(kept)
    assert len(kept) == keep or dropped["over_quota"] == 0


@given(samples=samples, keep=quotas)
def test_a_larger_quota_keeps_the_same_and_more(samples: list[tuple[float, str]], keep: int) -> None:
    fewer, more = chosen(samples, keep)[0], chosen(samples, keep + 1)[0]
    assert more[: len(fewer)] == fewer


@given(samples=samples)
def test_the_best_is_the_first_of_the_distinct(samples: list[tuple[float, str]]) -> None:
    rewards, texts = [reward for reward, _ in samples], [text for _, text in samples]
    best = select(rewards, texts, min_reward=0.5, keep=1, policy="best")
    assert best == chosen(samples, 1)
    assert best[0] == chosen(samples, 4)[0][:1]


def test_reward_beats_length_and_length_beats_order_in_any_order() -> None:
    ranking = [(1.0, "a long text"), (0.5, "short"), (0.5, "longer")]
    for shuffled in permutations(ranking):
        kept, _ = chosen(list(shuffled), 3)
        assert [shuffled[i] for i in kept] == ranking
    assert chosen([(1.0, "ab"), (1.0, "cd")], 1) == ([0], {"low_reward": 0, "duplicate": 0, "over_quota": 1})


def test_white_space_makes_no_new_text_and_reasons_are_counted() -> None:
    kept, dropped = chosen(
        [(0.0, "x"), (0.5, "a b"), (1.0, " a\n\nb "), (0.5, "c"), (0.5, "dd"), (math.nan, "c")], 2
    )
    assert kept == [2, 3]
    assert dropped == {"low_reward": 2, "duplicate": 1, "over_quota": 1}


@pytest.mark.parametrize(
    ("keep", "policy", "problem"), [(0, "distinct", "keep is 0"), (2, "best", "keeps one")]
)
def test_a_quota_that_makes_no_sense_is_refused(keep: int, policy: str, problem: str) -> None:
    with pytest.raises(ChainForgeError, match=problem):
        select([1.0], ["a"], min_reward=0.5, keep=keep, policy=policy)


def test_rewards_and_texts_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="shorter"):
        select([1.0, 1.0], ["a"], min_reward=0.5, keep=1, policy="best")
