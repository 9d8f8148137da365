"""Costs are exact, peak hours begin and end on the second, and `most` is what no call passes."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.providers.calls import Usage
from chainforge.providers.prices import FREE, Prices, Window
from chainforge.records import Message

FLASH = Prices(
    table="flash",
    hit=Decimal("0.003"),
    miss=Decimal("0.15"),
    output=Decimal("0.60"),
    peak_factor=Decimal(2),
    peak_hours=((1, 4), (6, 10)),
)
BEIJING, NEW_YORK = timezone(timedelta(hours=8)), timezone(timedelta(hours=-5))
tokens = st.integers(0, 10**6)
usd = st.decimals(0, 1000, places=4)
tables = st.builds(
    Prices,
    table=st.just("any"),
    hit=usd,
    miss=usd,
    output=usd,
    peak_factor=st.decimals("0.25", 4, places=2),
    peak_hours=st.just(((1, 4),)),
)


def test_a_thousand_problems_cost_what_the_price_list_says() -> None:
    usage = Usage(hit=1_000_000, miss=2_000_000, output=24_000_000)
    assert FLASH.cost(usage, "off-peak") == Decimal("14.703")
    assert FLASH.cost(usage, "peak") == Decimal("29.406")
    assert FLASH.cost(Usage(1, 0, 0), "off-peak") == Decimal("0.000000003")
    assert FREE.cost(usage, "peak") == 0


@given(price=tables, parts=st.lists(st.tuples(tokens, tokens, tokens), max_size=20))
def test_the_sum_of_the_costs_is_the_cost_of_the_sum(
    price: Prices, parts: list[tuple[int, int, int]]
) -> None:
    total = Usage(*(sum(column) for column in zip((0, 0, 0), *parts, strict=True)))
    for window in get_args(Window):
        assert sum(price.cost(Usage(*part), window) for part in parts) == price.cost(total, window)


@pytest.mark.parametrize(
    ("at", "window"),
    [
        ("2026-11-13T00:59:59.999", "off-peak"),  # a Friday
        ("2026-11-13T01:00:00", "peak"),
        ("2026-11-13T03:59:59.999", "peak"),
        ("2026-11-13T04:00:00", "off-peak"),
        ("2026-11-13T05:59:59", "off-peak"),
        ("2026-11-13T06:00:00", "peak"),
        ("2026-11-13T09:59:59", "peak"),
        ("2026-11-13T10:00:00", "off-peak"),
        ("2026-11-14T02:00:00", "off-peak"),  # Saturday
        ("2026-11-15T07:00:00", "off-peak"),  # Sunday
        ("2026-11-16T00:59:59", "off-peak"),
        ("2026-11-16T01:00:00", "peak"),  # Monday
    ],
)
@pytest.mark.parametrize("zone", [UTC, BEIJING, NEW_YORK])
def test_peak_hours_are_those_of_utc_from_monday_to_friday(at: str, window: Window, zone: timezone) -> None:
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert FLASH.window(moment.astimezone(zone)) == window


def test_without_peak_hours_it_is_never_peak() -> None:
    week = [datetime(2026, 11, 9, tzinfo=UTC) + timedelta(hours=h) for h in range(168)]
    assert {FREE.window(at) for at in week} == {"off-peak"}
    assert sum(FLASH.window(at) == "peak" for at in week) == 5 * 7


@pytest.mark.slow
@given(
    price=tables.filter(lambda price: price.hit <= price.miss),
    contents=st.lists(st.text(max_size=30), min_size=1, max_size=4),
    max_tokens=st.integers(1, 10**6),
    data=st.data(),
)
def test_no_call_costs_more_than_its_most(
    price: Prices, contents: list[str], max_tokens: int, data: st.DataObject
) -> None:
    messages = [Message(role="user", content=content) for content in contents]
    size = sum(len(content.encode(errors="replace")) for content in contents)
    prompt = data.draw(st.integers(0, size + 10 * len(messages)))
    hit = data.draw(st.integers(0, prompt))
    usage = Usage(hit=hit, miss=prompt - hit, output=data.draw(st.integers(0, max_tokens)))
    for window in get_args(Window):
        assert price.cost(usage, window) <= price.most(messages, max_tokens)


def test_text_that_is_no_unicode_has_a_price_too() -> None:
    assert FLASH.most([Message(role="user", content="\ud800")], 1) > 0
