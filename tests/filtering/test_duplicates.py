"""Duplicates: the first always stays, the rest depends on order alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz import fuzz

from chainforge.filtering import duplicates
from chainforge.filtering.duplicates import find_repeats

pytestmark = pytest.mark.slow

some_texts = st.lists(st.text("ab", max_size=8), max_size=30)
similarity = st.none() | st.integers(100, 200).map(lambda n: n / 2)


def by_hand(texts: list[str], near: float) -> list[str | None]:
    """The same, pair by pair."""
    found: list[str | None] = []
    stay: list[str] = []
    for place, text in enumerate(texts):
        exact = text in texts[:place]
        close = any(fuzz.ratio(text, other) >= near for other in stay)
        found.append("exact" if exact else "near" if close else None)
        if not exact and not close:
            stay.append(text)
    return found


@given(some_texts, st.integers(100, 200).map(lambda n: n / 2), st.integers(1, 5))
def test_chunks_find_what_pairs_would(texts: list[str], near: float, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "CHUNK", chunk)
        assert find_repeats(texts, near) == by_hand(texts, near)


@given(some_texts.filter(bool), similarity)
def test_the_first_stays_and_what_stays_is_not_alike(texts: list[str], near: float | None) -> None:
    found = find_repeats(texts, near)
    assert found[0] is None
    stay = [text for text, likeness in zip(texts, found, strict=True) if likeness is None]
    assert len(stay) == len(set(stay))
    assert find_repeats(stay, near) == [None] * len(stay)
    assert find_repeats(texts, near) == found


@given(some_texts, similarity)
def test_more_text_at_the_end_changes_nothing_before_it(texts: list[str], near: float | None) -> None:
    assert find_repeats([*texts, "abab"], near)[: len(texts)] == find_repeats(texts, near)


def test_problems_with_other_numbers_are_never_near() -> None:
    story = "A train travels {} miles in 3 hours. At the same rate, how many hours does it take for 90 miles?"
    for one, other in ((270, 360), ("270", "2700"), ("nine", "five"), ("half", "twice"), ("1.5", "1,5")):
        pair = [story.format(one), story.format(other)]
        assert find_repeats(pair, 95) == [None, "near"]
        assert find_repeats(pair, 95, numbers=True) == [None, None]
    reworded = [story.format(270), story.format(270).replace("travels", "travelled")]
    assert find_repeats(reworded, 95, numbers=True) == [None, "near"]
    assert find_repeats([story.format(270), story.format(360)], None) == [None, None]
