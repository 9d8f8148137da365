"""The picture of a filter: every test that dropped something, in order, with counts that add up."""

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from chainforge.filtering.funnel import REASONS, sort_reasons
from chainforge.report.evaluations import Funnel
from chainforge.report.funnel import funnel_panel, in_words, is_sequence, steps

counts = st.dictionaries(st.sampled_from([*REASONS, "of a later version"]), st.integers(0, 10**6))


@given(counts, st.integers(0, 10**6), st.integers(0, 9))
def test_what_is_left_goes_down_to_what_was_kept(dropped: dict[str, int], kept: int, rest: int) -> None:
    funnel = Funnel("filter_cot", sum(dropped.values()) + kept + rest, kept, dropped, {})
    rows = steps(funnel)
    left = funnel.read
    for _, count, after in rows:
        assert count > 0
        assert after == left - count
        left = after
    assert left == kept
    names = [reason for reason, _, _ in rows if reason != "not accounted for"]
    assert names == sort_reasons(name for name, count in dropped.items() if count)


def test_the_picture_and_the_words_have_every_count_and_are_the_same_each_time() -> None:
    dropped = {"over_quota": 5, "wrong": 1200, "<i>odd</i>": 1, "finish_error": 0}
    funnel = Funnel("filter_cot", 2206, 1000, dropped, {})
    svg = funnel_panel(funnel)
    assert svg == funnel_panel(funnel)
    shown = [text.strip() for text in ElementTree.fromstring(svg).itertext() if text.strip()]
    for words in ("filter_cot", "read", "2,206", "wrong", "1,006", "(−1,200)", "<i>odd</i>", "kept", "1,000"):
        assert words in " ".join(shown)
    assert "finish_error" not in shown
    assert in_words(funnel) == (
        "2,206 read; wrong dropped 1,200; over_quota dropped 5; <i>odd</i> dropped 1; 1,000 kept."
    )


def test_only_filters_test_one_thing_after_the_other() -> None:
    assert is_sequence(Funnel("filter_general", 0, 0, {}, {}))
    assert not is_sequence(Funnel("rejection_sampling", 0, 0, {}, {}))
    funnel_panel(Funnel("filter_general", 0, 0, {}, {}))
