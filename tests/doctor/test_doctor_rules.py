"""Where the thresholds are: laws over made-up tables. What real runs look like is in test_doctor_runs.py."""

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.algorithms.statistics import Paired, paired_difference
from chainforge.config.correction import FAR
from chainforge.config.grpo import GrpoSettings
from chainforge.doctor import data_rules, held_out_rules, policy_rules, rollout_rules
from chainforge.doctor.finding import Severity
from chainforge.doctor.runs import Comparison, GrpoRun, Keys, Table
from chainforge.doctor.series import Series, series
from chainforge.report.evaluations import Curve

pytestmark = pytest.mark.slow

ROWS = 30
RANK = {None: 0, Severity.NOTE: 1, Severity.WARNING: 2, Severity.ERROR: 3}
Columns = dict[str, Sequence[float]]
shares = st.floats(0, 1)


def grpo(columns: Columns, exact: bool = True, **settings: Any) -> GrpoRun:
    """A run with these columns; what is one number is the same in all rows."""
    usual = {"output": "checkpoints/b", "start_from": "checkpoints/a", "prompts": "p", "group_size": 8}
    rewards = {"correct": 1.0, "format": 0.2}
    parsed = GrpoSettings.model_validate(usual | {"rewards": rewards} | settings)
    n = max(map(len, columns.values()))
    table = Table(
        Curve("x", {"step": tuple(range(1, n + 1))} | {k: tuple(v) for k, v in columns.items()}), True
    )
    keys = Keys((("grpo", frozenset({"learning_rate"})), ("grpo_reasoning", frozenset({"rewards"}))))
    return GrpoRun("grpo_reasoning", parsed, keys, table, "correct", exact)


def flat(value: float, rows: int = ROWS) -> list[float]:
    return [value] * rows


def ramp(start: float, end: float, rows: int = ROWS) -> list[float]:
    return [start + (end - start) * i / (rows - 1) for i in range(rows)]


def rank(sign: Any) -> int:
    return RANK[sign.severity if sign else None]


@given(shares, shares)
def test_more_cut_completions_are_never_less_severe(a: float, b: float) -> None:
    low, high = sorted((a, b))
    signs = [rollout_rules.truncated(grpo({"completions/clipped_ratio": flat(x)})) for x in (low, high)]
    assert rank(signs[0]) <= rank(signs[1])
    assert (signs[0] is None) == (low < rollout_rules.CUT_SOME)


@given(shares, shares)
def test_more_equal_groups_are_never_less_severe(a: float, b: float) -> None:
    low, high = sorted((a, b))
    columns = {"reward": flat(0.5)}
    signs = [
        rollout_rules.equal_rewards(grpo(columns | {"frac_reward_zero_std": flat(x)})) for x in (low, high)
    ]
    assert rank(signs[0]) <= rank(signs[1])
    assert (rank(signs[1]) == RANK[Severity.ERROR]) == (high >= rollout_rules.EQUAL_ALL)


@given(st.floats(0, 10))
def test_the_kl_is_an_error_where_tokens_are_ten_times_as_likely(kl: float) -> None:
    found = rank(policy_rules.kl_blow_up(grpo({"kl": flat(kl)})))
    assert (found == RANK[Severity.ERROR]) == (kl >= math.log(10))
    assert (found > 0) == (kl >= math.log(2))


@given(st.floats(0.05, 3), st.floats(0.001, 3), st.floats(1, 500))
def test_entropy_never_collapses_and_explodes_at_once(start: float, end: float, length: float) -> None:
    run = grpo({"entropy": ramp(start, end), "reward": flat(0.5), "completions/mean_length": flat(length)})
    collapsed, exploded = policy_rules.entropy_collapse(run), policy_rules.entropy_explosion(run)
    assert not (collapsed and exploded)
    if end > start:
        assert collapsed is None
    else:
        assert exploded is None


@given(st.floats(0, 0.3), st.floats(1, 200))
def test_a_rate_is_called_too_low_only_where_pinsker_leaves_no_room(kl: float, length: float) -> None:
    run = grpo(
        {
            "reward": flat(0.5),
            "frac_reward_zero_std": flat(0.3),
            "clip_ratio/region_mean": flat(0.0),
            "kl": flat(kl),
            "completions/mean_length": flat(length),
        }
    )
    assert bool(policy_rules.rate_too_low(run)) == (math.sqrt(kl * length / 2) < policy_rules.HARDLY)


@given(st.floats(0, 1), st.booleans())
def test_where_the_sampler_is_the_policy_there_is_no_mismatch(drift: float, exact: bool) -> None:
    columns = {"sampling/sampling_logp_difference/mean": flat(drift)}
    assert bool(policy_rules.mismatch(grpo(columns, exact))) == (not exact and drift > FAR)


@pytest.mark.parametrize("rising", [True, False])
def test_length_is_free_to_drift_where_answers_get_better(rising: bool) -> None:
    length = ramp(20, 60)
    better = grpo(
        {"completions/mean_length": length, "rewards/correct/mean": ramp(0.2, 0.6 if rising else 0.2)}
    )
    assert bool(rollout_rules.length_drift(better)) == (not rising)


@given(st.integers(10, 200), st.floats(-5, 5), st.floats(-100, 100))
def test_a_change_does_not_depend_on_scale_or_origin(n: int, slope: float, origin: float) -> None:
    noise = [((i * 7919) % 101) / 101 for i in range(n)]
    plain = Series("x", tuple(range(n)), tuple(e + slope * i / n for i, e in enumerate(noise)))
    moved = Series("x", plain.steps, tuple(3 * v + origin for v in plain.values))
    assert moved.moved == pytest.approx(plain.moved, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("rows", [10, 15, 40, 150])
def test_noise_alone_is_rarely_a_change(rows: int) -> None:
    draw = random.Random(1)
    runs = [series("x", range(rows), [draw.gauss(0, 1) for _ in range(rows)]) for _ in range(2000)]
    found = sum(abs(run.moved) >= run.sure for run in runs)
    assert found <= 16, "5 of 2,000 are expected, and hardly ever more than 16 if it were twice that"


def test_a_run_that_breaks_at_once_has_fallen() -> None:
    broken = Series("reward", tuple(range(1, 26)), (0.5, 0.1, *([0.0] * 23)))
    assert broken.fell
    assert not Series("reward", broken.steps, (0.5,) * 25).fell


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=20, max_size=60))
def test_with_the_problems_needed_the_interval_excludes_zero(pairs: list[tuple[bool, bool]]) -> None:
    paired = paired_difference([float(a) for a, _ in pairs], [float(b) for _, b in pairs])
    needed = held_out_rules.problems_needed(Comparison("b", "a", "x", len(pairs), paired))
    if needed > held_out_rules.MANY:
        return
    width = (paired.hi - paired.lo) / 2 * math.sqrt(len(pairs) / needed)
    assert width < abs(paired.mean_difference)


def test_a_narrow_interval_is_said_nothing_of() -> None:
    def sign(half: float) -> object:
        comparison = Comparison("b", "a", "x", 1000, Paired(0.0, -half, half, 1.0))
        return held_out_rules.half_width(comparison) < held_out_rules.CLOSE

    assert sign(0.005)
    assert not sign(0.02)


def test_a_key_is_of_the_section_that_sets_it() -> None:
    keys = Keys((("grpo", frozenset({"learning_rate"})), ("grpo_final", frozenset({"rewards"}))))
    assert [keys(name) for name in ("learning_rate", "rewards", "group_size")] == [
        "grpo.learning_rate", "grpo_final.rewards", "grpo.group_size",
    ]  # fmt: skip


def test_every_reason_with_advice_is_one_of_the_filter() -> None:
    from chainforge.filtering.funnel import REASONS

    assert set(data_rules.TO_CHANGE) | set(data_rules.NOT_BAD) <= set(REASONS)
