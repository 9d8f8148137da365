"""Laws of the learning rate schedules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.algorithms.schedule import SCHEDULES, cosine_with_warmup
from chainforge.errors import ChainForgeError

names = st.sampled_from(sorted(SCHEDULES))
lengths = st.integers(1, 300)
fractions = st.floats(0, 1)


def curve(name: str, steps: int, warmup_fraction: float, floor_fraction: float) -> list[float]:
    schedule = SCHEDULES[name]
    return [
        schedule(step, steps=steps, warmup_fraction=warmup_fraction, floor_fraction=floor_fraction)
        for step in range(1, steps + 1)
    ]


@given(name=names, steps=lengths, warmup=fractions, floor=fractions)
def test_a_schedule_climbs_to_one_and_never_rises_again(
    name: str, steps: int, warmup: float, floor: float
) -> None:
    values = curve(name, steps, warmup, floor)
    peak = values.index(max(values))
    assert values[peak] == 1.0
    assert 0 < values[0] <= 1
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert peak == min(round(warmup * steps), steps - 1)


@given(steps=st.integers(2, 300), floor=fractions)
def test_cosine_ends_at_its_floor_and_is_half_way_down_in_the_middle(steps: int, floor: float) -> None:
    values = curve("cosine", steps, 0.0, floor)
    assert values[-1] == pytest.approx(floor)
    assert values[0] + values[-1] == pytest.approx(values[(steps - 1) // 2] + values[steps // 2])


@given(steps=lengths, floor=fractions)
def test_constant_without_warmup_is_one_throughout(steps: int, floor: float) -> None:
    assert curve("constant", steps, 0.0, floor) == [1.0] * steps


def test_cosine_of_a_hand_computed_example() -> None:
    assert curve("cosine", 7, 0.3, 0.1) == pytest.approx([1 / 3, 2 / 3, 1.0, 0.8681981, 0.55, 0.2318019, 0.1])


@pytest.mark.parametrize("step", [0, 11])
def test_a_step_outside_of_the_run_is_refused(step: int) -> None:
    with pytest.raises(ChainForgeError, match=f"step {step} is outside"):
        cosine_with_warmup(step, steps=10, warmup_fraction=0.1, floor_fraction=0.1)
