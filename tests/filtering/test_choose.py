"""Choosing among too many: exactly as many as wanted, by length alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.filtering.choose import Choose, choose

lengths = st.lists(st.integers(0, 9), max_size=12)


@given(lengths, st.integers(1, 12), st.sampled_from(["first", "shortest", "spread"]))
def test_as_many_as_wanted_and_all_where_there_are_fewer(of: list[int], keep: int, how: Choose) -> None:
    chosen = choose(of, keep, how)
    assert len(chosen) == min(keep, len(of))
    assert chosen <= set(range(len(of)))


@pytest.mark.parametrize(
    ("how", "keep", "chosen"),
    [
        ("first", 2, {0, 1}),
        ("shortest", 2, {1, 3}),
        ("spread", 1, {2}),
        ("spread", 2, {1, 4}),
        ("spread", 3, {1, 2, 4}),
        ("spread", 4, {1, 2, 3, 4}),
    ],
)
def test_each_way(how: Choose, keep: int, chosen: set[int]) -> None:
    assert choose([30, 10, 25, 20, 90], keep, how) == chosen


@given(lengths.filter(lambda of: len(of) > 3), st.integers(2, 3))
def test_a_spread_has_the_shortest_and_the_longest(of: list[int], keep: int) -> None:
    chosen = {of[place] for place in choose(of, keep, "spread")}
    assert {min(of), max(of)} <= chosen
