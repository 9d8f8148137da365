"""Laws of the statistics, and how often the intervals hold what they promise."""

import itertools
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.algorithms.statistics import (
    doublings,
    maj_at_k,
    mean_interval,
    paired_difference,
    pass_at_k,
    wilson_interval,
)
from chainforge.errors import ChainForgeError

rates = st.sampled_from([i / 4 for i in range(5)])
many_rates = st.lists(rates, min_size=1, max_size=40)


@given(n=st.integers(1, 500), share=st.floats(0, 1))
def test_wilson_holds_the_rate_has_a_width_and_is_symmetric(n: int, share: float) -> None:
    successes = round(share * n)
    lo, hi = wilson_interval(successes, n)
    assert 0 <= lo <= successes / n <= hi <= 1
    assert lo < hi
    assert wilson_interval(n - successes, n) == pytest.approx((1 - hi, 1 - lo))


def test_wilson_of_published_examples() -> None:
    """Newcombe, Statistics in Medicine 17, 1998, table I, method 3."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0000, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@given(values=many_rates)
def test_mean_interval_holds_the_mean_has_a_width_and_is_symmetric(values: list[float]) -> None:
    mean, lo, hi = mean_interval(values)
    assert 0 <= lo <= mean <= hi <= 1
    assert lo < hi
    mirrored = mean_interval([1 - value for value in values])
    assert mirrored == pytest.approx((1 - mean, 1 - hi, 1 - lo))


@given(values=st.lists(st.sampled_from((0.0, 1.0)), min_size=1, max_size=40))
def test_mean_interval_of_yes_or_no_values_is_wilsons(values: list[float]) -> None:
    assert mean_interval(values)[1:] == pytest.approx(wilson_interval(sum(values), len(values)))


@given(values=many_rates)
def test_more_samples_per_problem_never_widen_the_interval_beyond_yes_or_no(values: list[float]) -> None:
    mean, lo, hi = mean_interval(values)
    widest_lo, widest_hi = wilson_interval(mean * len(values), len(values))
    assert widest_lo - 1e-9 <= lo
    assert hi <= widest_hi + 1e-9


@pytest.mark.parametrize("last", [0.5, 0.5001, 0.51, 0.6])
def test_hardly_any_spread_between_few_problems_is_not_taken_for_certainty(last: float) -> None:
    _, lo, hi = mean_interval([0.5] * 9 + [last])
    assert hi - lo > 0.15
    assert hi - lo == pytest.approx(2 * 1.96 * (0.25 / 110) ** 0.5, rel=0.05)


def test_with_many_problems_the_interval_is_the_clustered_normal_one() -> None:
    values = [0.25, 0.5, 0.5, 0.75] * 2500
    error = (0.03125 / 10_000) ** 0.5
    assert mean_interval(values) == pytest.approx((0.5, 0.5 - 1.96 * error, 0.5 + 1.96 * error), abs=2e-6)


@pytest.mark.dear
@pytest.mark.parametrize("n", [10, 40])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (2.0, 18.0), (0.3, 0.3), (0.5, 4.5)])
def test_the_interval_covers_the_true_rate_about_95_times_in_100(n: int, k: int, a: float, b: float) -> None:
    rng = random.Random(f"{n} {k} {a} {b}")
    covered = 0
    for _ in range(400):
        solve_rates = [rng.betavariate(a, b) for _ in range(n)]
        _, lo, hi = mean_interval([sum(rng.random() < rate for _ in range(k)) / k for rate in solve_rates])
        covered += lo <= a / (a + b) <= hi
    assert covered / 400 >= 0.91


@given(right=st.lists(st.booleans(), min_size=1, max_size=9), data=st.data())
def test_pass_at_k_is_the_share_of_all_choices_of_k_that_hold_a_right_one(
    right: list[bool], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(right)))
    chosen = list(itertools.combinations(right, k))
    assert pass_at_k(len(right), sum(right), k) == pytest.approx(sum(map(any, chosen)) / len(chosen))


@given(samples=st.integers(1, 200), data=st.data())
def test_pass_at_k_rises_with_k_from_the_rate_to_whether_any_is_right(
    samples: int, data: st.DataObject
) -> None:
    right = data.draw(st.integers(0, samples))
    told = [pass_at_k(samples, right, k) for k in range(1, samples + 1)]
    assert told == sorted(told)
    assert (told[0], told[-1]) == pytest.approx((right / samples, float(right > 0)))


def test_pass_at_k_is_told_for_doublings_up_to_all_samples() -> None:
    assert [doublings(n) for n in (1, 2, 3, 4, 10)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4], [1, 2, 4, 8, 10]]


@pytest.mark.parametrize(("samples", "right", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_an_impossible_pass_at_k_is_refused(samples: int, right: int, k: int) -> None:
    with pytest.raises(ChainForgeError, match=f"no pass@{k} from"):
        pass_at_k(samples, right, k)


@pytest.mark.slow
@given(answers=st.lists(st.sampled_from(("1", "2", "3", None)), max_size=9))
def test_majority_is_the_most_common_and_the_first_among_equals(answers: list[str | None]) -> None:
    majority = maj_at_k(answers)
    given_answers = [answer for answer in answers if answer is not None]
    if majority is None:
        assert not given_answers
    else:
        most = max(given_answers.count(answer) for answer in given_answers)
        assert majority == next(answer for answer in given_answers if given_answers.count(answer) == most)


@pytest.mark.slow
@given(pairs=st.lists(st.tuples(rates, rates), min_size=1, max_size=40))
def test_a_difference_turns_its_sign_with_the_order_and_lies_in_its_interval(
    pairs: list[tuple[float, float]],
) -> None:
    a, b = zip(*pairs, strict=True)
    forward, backward = paired_difference(a, b), paired_difference(b, a)
    assert -1 <= forward.lo <= forward.mean_difference <= forward.hi <= 1
    assert forward.lo < forward.hi
    assert (forward.lo, forward.hi) == pytest.approx((-backward.hi, -backward.lo))
    assert forward.mean_difference == pytest.approx(-backward.mean_difference)
    assert forward.p_value == pytest.approx(backward.p_value)
    assert 0 < forward.p_value <= 1


def test_paired_difference_of_a_hand_computed_example() -> None:
    result = paired_difference([1.0] * 30 + [0.0] * 70, [1.0] * 20 + [0.0] * 80)
    error = (10 * 0.9**2 + 90 * 0.1**2) ** 0.5 / (99 * 100) ** 0.5
    assert (result.lo, result.hi) == pytest.approx((0.1 - 1.959964 * error, 0.1 + 1.959964 * error))
    assert result.p_value == pytest.approx(2**-9)  # z = 3.3 would say 0.0009 of ten changed problems


def test_equal_checkpoints_do_not_differ_and_the_claim_sharpens_with_n() -> None:
    few, many = paired_difference([0.5] * 5, [0.5] * 5), paired_difference([0.5] * 500, [0.5] * 500)
    assert few.mean_difference == many.mean_difference == 0
    assert few.p_value == many.p_value == 1
    assert few.lo < many.lo < 0 < many.hi < few.hi


def test_one_uniform_gain_is_believed_only_with_enough_problems() -> None:
    assert paired_difference([0.75], [0.5]).p_value == 1
    assert paired_difference([0.75] * 3, [0.5] * 3).p_value == 0.25
    assert paired_difference([0.75] * 20, [0.5] * 20).p_value < 1e-5


def test_no_difference_is_found_by_chance_about_5_times_in_100() -> None:
    rng = random.Random(3)
    found = covered = 0
    for _ in range(600):
        pairs = [(rng.random() < rate, rng.random() < rate) for rate in (rng.random() for _ in range(60))]
        result = paired_difference(*([float(x) for x in side] for side in zip(*pairs, strict=True)))
        found += result.p_value < 0.05
        covered += result.lo <= 0 <= result.hi
    assert found / 600 <= 0.075
    assert covered / 600 >= 0.925


@pytest.mark.parametrize("values", [[], [1.2], [-0.1, 0.5], [float("nan")]])
def test_an_interval_of_nothing_or_of_no_rates_is_refused(values: list[float]) -> None:
    with pytest.raises(ChainForgeError, match="0…1"):
        mean_interval(values)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ChainForgeError, match="no interval for 3 of 2"):
        wilson_interval(3, 2)
    with pytest.raises(ChainForgeError, match="nothing to compare"):
        paired_difference([], [])


@pytest.mark.slow
def test_settings_and_statistics_do_without_torch() -> None:
    names = "chainforge.config.verbs, chainforge.algorithms.statistics"
    check = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
