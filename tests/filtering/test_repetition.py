"""Loops: found with or without spaces, whatever their period; ordinary text has none."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.filtering.repetition import WINDOW, repeated_share


@given(st.text(min_size=1, max_size=400), st.integers(2, 40))
def test_a_loop_is_found_however_long_its_period(unit: str, times: int) -> None:
    text = " ".join((unit * times).split())
    windows = len(text) - WINDOW + 1
    if windows > 0:
        assert repeated_share(text) >= 1 - (len(unit) + 1) / windows


@pytest.mark.parametrize("period", [1, 2, 63, 64, 65, 1000, 20_000])
def test_ten_rounds_without_a_space_are_mostly_repetition(period: int) -> None:
    draw = random.Random(period)
    unit = "".join(draw.choices("abcdefgh", k=period))
    assert repeated_share(unit * (10 + 1000 // period)) > 0.85
    assert repeated_share("Here it begins. " + unit * (10 + 1000 // period)) > 0.8


def test_text_without_a_loop_has_no_share() -> None:
    draw = random.Random(17)
    text = " ".join(
        f"Step {n}: add {draw.randrange(10**6)} and {draw.randrange(10**6)}." for n in range(2000)
    )
    assert repeated_share(text) == 0


def test_the_share_counts_what_stood_there_before() -> None:
    draw = random.Random(17)
    first = "".join(draw.choices("abcdefghij", k=1000))
    assert repeated_share(first) == 0
    assert repeated_share(first + first) == pytest.approx((1000 - WINDOW + 1) / (2000 - WINDOW + 1))


@pytest.mark.parametrize("text", ["", "ha", "ha" * 31, " \n" * 500])
def test_what_is_short_or_empty_is_no_loop(text: str) -> None:
    assert repeated_share(text) == 0


@given(st.text(max_size=300))
def test_a_share_is_a_share_and_spaces_do_not_matter(text: str) -> None:
    assert 0 <= repeated_share(text) < 1
    assert repeated_share(text) == repeated_share("  \n" + text.replace(" ", "\n\t"))


def test_windows_are_told_apart_as_sets_of_strings_would_tell_them() -> None:
    draw = random.Random(5)
    for alphabet in ("ab", "01 ", "所以\U0001f600a"):
        text = " ".join("".join(draw.choices(alphabet, k=3000)).split())
        text = text + text[700:1900]
        windows = [text[i : i + WINDOW] for i in range(len(text) - WINDOW + 1)]
        assert repeated_share(text) == 1 - len(set(windows)) / len(windows)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["a", "ab ", "\u0301\u0323", "\ud800", "\U0001f600"])
def test_a_megabyte_takes_a_moment(unit: str) -> None:
    started = time.process_time()
    assert repeated_share(unit * (10**6 // len(unit))) > 0.99
    assert time.process_time() - started < 3
