"""When a collection gives up: what the first answers say counts, however many end at the same time."""

from hypothesis import example, given
from hypothesis import strategies as st

from chainforge.teachers.stops import hopeless
from chainforge.teachers.tally import JUDGED, Tally
from chainforge.teachers.verdict import Verdict

ENDS = {
    "answered": Verdict("keep", "answered", answered=True),
    "no_reasoning": Verdict("again", "no_reasoning", answered=True),
    "failed": Verdict("again", "failed"),
}


@given(ends=st.lists(st.sampled_from(sorted(ENDS)), min_size=1, max_size=3 * JUDGED))
@example(ends=["answered"] * (JUDGED - 11) + ["no_reasoning"] * 20)
@example(ends=["answered"] * (JUDGED - 10) + ["no_reasoning"] * 20)
def test_the_first_answers_are_judged_however_many_end_between_two_looks(ends: list[str]) -> None:
    always, now_and_then = Tally(1000), Tally(1000)
    stopped = False
    for end in ends:
        for tally in (always, now_and_then):
            tally.ended(ENDS[end], 1)
        stopped = stopped or hopeless(always, "") is not None
    first = [end for end in ends if end != "failed"][:JUDGED]
    assert stopped == (first.count("no_reasoning") > JUDGED // 5)
    assert (hopeless(now_and_then, "") is not None) == stopped
