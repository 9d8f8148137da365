"""A budget is never passed, whatever calls cost and in whatever order they end."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.teachers.budget import Budget

usd = st.decimals(0, 10, places=9)


@pytest.mark.slow
@given(cap=usd, spent=usd, lost=usd, data=st.data())
def test_what_is_asked_for_first_never_passes_the_cap(
    cap: Decimal, spent: Decimal, lost: Decimal, data: Any
) -> None:
    share = data.draw(st.decimals(0, 1, places=3))
    spent, lost = spent * cap / 20, lost * cap / 20  # of earlier runs
    budget = Budget(cap, spent, lost)
    flying: list[Decimal] = []
    for most in data.draw(st.lists(usd, max_size=30)):
        before = budget.spent, budget.lost, budget.reserved
        if budget.fits(most):
            budget.reserve(most)
            flying.append(most)
        else:
            assert sum(before) + most > cap
            assert (budget.spent, budget.lost, budget.reserved) == before, "asking changes nothing"
        if flying and data.draw(st.booleans()):
            over = flying.pop(data.draw(st.integers(0, len(flying) - 1)))
            cost = (over * share).quantize(Decimal("1e-9"))
            budget.settle(over, **data.draw(st.sampled_from([{"cost": cost}, {"lost": over}, {}])))
        assert budget.reserved == sum(flying)
        assert 0 <= budget.spent + budget.lost + budget.reserved <= cap
    for most in flying:
        budget.settle(most)
    assert budget.reserved == 0


@given(usd)
def test_without_a_cap_everything_fits(most: Decimal) -> None:
    assert Budget(None, spent=Decimal(10**6)).fits(most)


@given(usd)
def test_a_call_that_uses_up_the_rest_exactly_fits(most: Decimal) -> None:
    budget = Budget(Decimal(1) + most, spent=Decimal(1))
    assert budget.fits(most)
    budget.reserve(most)
    assert not budget.fits(Decimal("1e-12"))
