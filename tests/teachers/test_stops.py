"""When a collection gives up: what the first answers say counts, however many end at the same time."""

from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st

from chainforge.teachers.stops import fruitless, hopeless
from chainforge.teachers.tally import JUDGED, Tally
from chainforge.teachers.verdict import Verdict

ENDS = {
    "answered": Verdict("keep", "answered", answered=True),
    "no_reasoning": Verdict("again", "no_reasoning", answered=True),
    "failed": Verdict("again", "failed"),
}
ODD = ENDS | {
    "mystery": Verdict("keep", "unknown finish", answered=True, word="mystery"),
    "riddle": Verdict("keep", "unknown finish", answered=True, word="riddle"),
}


@given(ends=st.lists(st.sampled_from(sorted(ENDS)), min_size=1, max_size=3 * JUDGED))
@example(ends=["answered"] * (JUDGED - 11) + ["no_reasoning"] * 20)
@example(ends=["answered"] * (JUDGED - 10) + ["no_reasoning"] * 20)
def test_the_first_answers_are_judged_however_many_end_between_two_looks(ends: list[str]) -> None:
    always, now_and_then = Tally(1000), Tally(1000)
    stopped = False
    for end in ends:
        for tally in (always, now_and_then):
            tally.count(ENDS[end], 1)
        stopped = stopped or hopeless(always, 0) is not None
    first = [end for end in ends if end != "failed"][:JUDGED]
    assert stopped == (first.count("no_reasoning") > JUDGED // 5)
    assert (hopeless(now_and_then, 0) is not None) == stopped


@given(ends=st.lists(st.sampled_from(sorted(ODD)), min_size=1, max_size=2 * JUDGED))
def test_finishes_that_nobody_knows_stop_the_run_when_they_pile_up(ends: list[str]) -> None:
    tally = Tally(1000)
    for end in ends:
        tally.count(ODD[end], 1)
    first = [end for end in ends if end != "failed"][:JUDGED]
    odd = Counter(end for end in first if end in ("mystery", "riddle"))
    silent = first.count("no_reasoning")
    why = hopeless(tally, 0)
    assert (why is not None) == (max(silent, odd.total()) > JUDGED // 5)
    if why and silent <= JUDGED // 5:
        assert why.exit_code == 10
        assert all(repr(word) in why.problem for word in odd)
        assert "teacher.finishes" in why.fix


def test_nobody_is_given_up_for_while_calls_are_in_flight() -> None:
    tally = Tally(1000)
    for _ in range(5):
        tally.count(Verdict("skip", "failed"), 0, "500: broken")
    assert hopeless(tally, in_flight=1) is None
    assert "all failed: 500: broken" in str(hopeless(tally, in_flight=0))


def test_a_run_without_one_answer_is_not_done() -> None:
    tally = Tally(3)
    assert fruitless(tally) is None
    tally.count(Verdict("skip", "refused"), 0, "422: no")
    assert str(fruitless(tally)).startswith("the first 1 questions were all refused: 422: no")
    assert fruitless(Tally(3, kept=1)) is None
