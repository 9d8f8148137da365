"""An interval over seeds holds the truth as often as it says, with as few as three."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.algorithms.over_seeds import (
    MOST_SEEDS,
    difference_over_seeds,
    mean_over_seeds,
    student_t_quantile,
    student_t_within,
)
from chainforge.algorithms.statistics import wilson_interval
from chainforge.errors import ChainForgeError

DRAWS = 500
PROBLEMS = 40


def draw(
    rng: np.random.Generator, seeds: int, truth: float, *, of_seed: float, of_problem: float, shared: bool
) -> list[dict[str, float]]:
    """Differences by problem: the truth, what the seed adds, what a problem adds in all seeds, and noise."""
    rows = rng.normal(truth, 0.2, (seeds, PROBLEMS)) + rng.normal(0, of_seed, (seeds, 1))
    rows += rng.normal(0, of_problem, (1, PROBLEMS) if shared else (seeds, PROBLEMS))
    return [{f"{0 if shared else s}/{p}": float(x) for p, x in enumerate(row)} for s, row in enumerate(rows)]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("shared", [False, True], ids=["own problems", "same problems"])
@pytest.mark.parametrize("of_seed", [0.0, 0.03, 0.15])
def test_the_interval_holds_the_truth_and_equal_settings_are_not_told_apart(
    seeds: int, shared: bool, of_seed: float
) -> None:
    rng = np.random.default_rng(seeds)
    spread = {"of_seed": of_seed, "of_problem": 0.2, "shared": shared}
    found = [difference_over_seeds(draw(rng, seeds, 0.1, **spread)) for _ in range(DRAWS)]
    assert sum(one.lo <= 0.1 <= one.hi for one in found) >= 0.93 * DRAWS
    nothing = [difference_over_seeds(draw(rng, seeds, 0.0, **spread)) for _ in range(DRAWS)]
    assert sum(one.clear for one in nothing) <= 0.07 * DRAWS


@pytest.mark.slow
def test_as_many_seeds_as_it_says_find_the_difference() -> None:
    rng = np.random.default_rng(0)
    spread = {"of_seed": 0.1, "of_problem": 0.1, "shared": False}
    wide = difference_over_seeds(draw(rng, 200, 0.1, **spread))
    assert wide.seeds_needed
    found = [difference_over_seeds(draw(rng, wide.seeds_needed, 0.1, **spread)).clear for _ in range(300)]
    assert 0.68 * 300 <= sum(found) <= 0.92 * 300


@pytest.mark.slow
def test_the_share_of_seeds_is_the_share_of_seeds() -> None:
    rng = np.random.default_rng(1)
    per_problem = (0.2**2 + 0.2**2) / PROBLEMS
    for of_seed in (0.0, math.sqrt(per_problem), 0.3):
        for shared in (False, True):
            found = difference_over_seeds(draw(rng, 300, 0.0, of_seed=of_seed, of_problem=0.2, shared=shared))
            own = of_seed**2 / 300
            others = per_problem / 300 if not shared else 0.2**2 / PROBLEMS * (1 + 1 / 300)
            assert found.seed_share == pytest.approx(own / (own + others), abs=0.15)


def test_the_same_answers_prove_nothing_and_need_no_seeds() -> None:
    same = difference_over_seeds([{"a": 0.0, "b": 0.0}, {"c": 0.0, "d": 0.0}])
    assert (same.mean, same.clear, same.p_value, same.seeds_needed) == (0.0, False, 1.0, None)
    assert same.lo < 0 < same.hi


def test_more_seeds_do_not_help_where_they_share_too_few_problems() -> None:
    shared = {str(i): (-1.0) ** i for i in range(20)} | {"x": 0.3}
    assert difference_over_seeds([shared, shared, shared]).seeds_needed is None


def test_one_seed_is_refused() -> None:
    for seeds in ([{"a": 1.0}], [{"a": 1.0}, {}]):
        with pytest.raises(ChainForgeError, match="cannot show how much seeds differ"):
            difference_over_seeds(seeds)


def values(**limits: float) -> st.SearchStrategy[float]:
    return st.floats(allow_nan=False, width=32, **limits)  # type: ignore[arg-type]


@pytest.mark.slow
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcdef"), values(min_value=-1, max_value=1), min_size=1),
        min_size=2,
        max_size=6,
    )
)
def test_swapping_the_settings_turns_the_result_around(per_seed: list[dict[str, float]]) -> None:
    one = difference_over_seeds(per_seed)
    other = difference_over_seeds([{p: -d for p, d in seed.items()} for seed in per_seed])
    assert one.lo <= one.mean <= one.hi
    assert 0 <= one.p_value <= 1
    assert 0 <= one.seed_share <= 1
    assert one.seeds_needed is None or 2 <= one.seeds_needed <= MOST_SEEDS
    assert (one.lo, one.hi, one.p_value) == pytest.approx((-other.hi, -other.lo, other.p_value), abs=1e-9)


def test_student_t_is_that_of_the_tables() -> None:
    told = {1: 12.7062, 2: 4.30265, 3: 3.18245, 4: 2.77645, 9: 2.26216, 30: 2.04227}
    for df, t in told.items():
        assert student_t_quantile(0.975, df) == pytest.approx(t, rel=1e-5)
        assert student_t_within(t, df) == pytest.approx(0.95, abs=1e-6)


def test_a_mean_over_seeds_has_an_interval_that_one_seed_cannot_narrow() -> None:
    assert mean_over_seeds([0.5], 40) == (0.5, 0.0, 1.0)
    mean, lo, hi = mean_over_seeds([0.50, 0.52, 0.54], 6000)
    assert (mean, lo, hi) == pytest.approx(
        (0.52, 0.52 - 4.30265 * 0.02 / 3**0.5, 0.52 + 4.30265 * 0.02 / 3**0.5)
    )


def test_seeds_that_agree_leave_the_noise_of_their_problems() -> None:
    for rate in (0.0, 0.5, 1.0):
        mean, lo, hi = mean_over_seeds([rate, rate], 40)
        assert mean == rate
        assert (lo, hi) == wilson_interval(rate * 40, 40)
        assert hi - lo > 0.05
