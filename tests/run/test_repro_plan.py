"""Which step goes first, and which need not run: laws over random graphs."""

import random
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.repro.at_once import Running, Steps, show
from chainforge.repro.plan import Plan, by_urgency, only_changed


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Steps that wait for some of those before them."""
    size = draw(st.integers(0, 12))
    return {f"s{i}": [f"s{j}" for j in range(i) if draw(st.integers(0, 3)) == 0] for i in range(size)}


def chain_after(plan: Plan, step: str) -> int:
    return max((1 + chain_after(plan, other) for other in plan if step in plan[other]), default=0)


@given(plans())
def test_the_longest_chain_goes_first(plan: Plan) -> None:
    order = by_urgency(plan)
    assert sorted(order) == sorted(plan)
    lengths = [chain_after(plan, step) for step in order]
    assert lengths == sorted(lengths, reverse=True)


@given(plans(), st.randoms(use_true_random=False), st.integers(1, 4))
def test_each_step_runs_once_and_after_all_that_it_waits_for(
    plan: Plan, chance: random.Random, jobs: int
) -> None:
    steps = Steps({step: set(plan[step]) for step in by_urgency(plan)})
    ended: list[str] = []
    while True:
        while len(steps.running) < jobs and (step := steps.next()):
            assert set(plan[step]) <= set(ended)
            del steps.waiting[step]
            steps.running.append(Running(step, 0, None))
        if not steps.running:
            break
        ended.append((one := chance.choice(steps.running)).step)
        steps.end(one, 0)
    assert sorted(ended) == sorted(plan)


@given(plans(), st.data())
def test_what_is_left_is_what_changed_and_what_waits_for_it(plan: Plan, data: st.DataObject) -> None:
    changed = {step for step in plan if data.draw(st.booleans())}

    def has_to_run(step: str) -> bool:
        return step in changed or any(map(has_to_run, plan[step]))

    left = only_changed(plan, changed)
    assert list(left) == [step for step in plan if has_to_run(step)]
    assert left == {step: [before for before in plan[step] if before in left] for step in left}


def test_nothing_starts_after_one_has_failed() -> None:
    steps = Steps({"a": set(), "b": set()}, [failed := Running("c", 0, None)])
    assert steps.next() == "a"
    steps.end(failed, 255)
    assert (steps.next(), steps.code) == (None, 255)


def test_a_step_that_has_said_nothing_leaves_no_line_and_what_it_says_is_shown_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with tempfile.TemporaryFile() as said:
        running = Running("a", 0, said)
        show(running)
        show(running)
        assert capfd.readouterr().out == ""
        said.write(b"one\n")
        said.flush()
        show(running)
        show(running)
        assert capfd.readouterr().out == "\none\n"
