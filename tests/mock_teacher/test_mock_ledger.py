"""The ledger: what was billed, what was delivered, and that the sums are those of its lines."""

import asyncio
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mock_asking import ask, careful, label, question, with_server

from chainforge.errors import ChainForgeError
from chainforge.mock_teacher.asked import Label
from chainforge.mock_teacher.faults import FAULTS
from chainforge.mock_teacher.ledger import Entry, Ledger
from chainforge.mock_teacher.mock import PRICES
from chainforge.mock_teacher.script import FaultScript
from chainforge.mock_teacher.serve import Served
from chainforge.providers.calls import Usage
from chainforge.providers.prices import FREE

QUICK = [name for name in FAULTS if name not in ("hang", "blank_lines_endless", "slow_drip")]
SCRIPT = FaultScript(rates=dict.fromkeys(QUICK, 0.8 / len(QUICK)), seed=1, blank_s=0.001)
usages = st.builds(Usage, *[st.integers(0, 10**6)] * 3)


async def many(session: aiohttp.ClientSession, served: Served, n: int = 200) -> None:
    """Requests of both sorts; most of them fail somehow."""

    async def one(number: int) -> None:
        body = question(f"{number}+1=?", stream=number % 2 == 0)
        try:
            await ask(session, served, body, label(f"p{number}"))
        except aiohttp.ClientError:
            return

    await asyncio.gather(*map(one, range(n)))


def test_totals_are_the_sums_of_the_lines_and_tokens_times_prices(tmp_path: Path) -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> Any:
        await many(session, served)
        async with session.get(f"{served.root}/mock/ledger") as reply:
            return await reply.json()

    told, served = with_server(careful(faults=SCRIPT, ledger=tmp_path / "ledger.jsonl"), story)
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert told == served.ledger.totals().as_json()
    assert lines == [entry.as_json() for entry in served.ledger.entries]
    assert sorted(line["number"] for line in lines) == list(range(1, 201))
    assert {line["prompt"] for line in lines} == {f"p{i}" for i in range(200)}
    billed = sum(Decimal(line["cost"]) for line in lines if line["billed"])
    delivered = sum(Decimal(line["cost"]) for line in lines if line["delivered"])
    assert Decimal(told["billed_usd"]) == billed
    assert Decimal(told["delivered_usd"]) == delivered
    assert Decimal(told["billed_undelivered_usd"]) == billed - delivered > 0
    assert sum(told["by_status"].values()) == told["requests"] == 200
    assert sum(told["by_fault"].values()) == sum(line["fault"] is not None for line in lines)
    for line in lines:
        assert (line["usage"] is not None) == line["billed"] == (Decimal(line["cost"]) > 0)
        if line["billed"]:
            assert Decimal(line["cost"]) == PRICES.cost(Usage(**line["usage"]), "off-peak")
            assert line["status"] == (504 if line["fault"] == "gateway_timeout" else 200)
        assert line["billed"] or not line["delivered"]


def test_what_a_request_costs_does_not_depend_on_the_others() -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> None:
        await many(session, served, 40)
        await many(session, served, 40)

    _, served = with_server(careful(faults=SCRIPT), story)
    costs: dict[Label | None, set[tuple[Decimal, str | None]]] = {}
    for entry in served.ledger.entries:
        costs.setdefault(entry.label, set()).add((entry.cost, entry.fault))
    assert len(costs) == 40
    assert all(len(found) == 1 for found in costs.values())


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_to_a_client_that_has_left_is_billed_and_not_delivered(stream: bool) -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> None:
        with pytest.raises(TimeoutError):
            await ask(session, served, question(stream=stream), within_s=0.3)
        async with asyncio.timeout(5):
            while not served.ledger.entries:
                await asyncio.sleep(0.01)

    _, served = with_server(careful(latency_s=0.0 if stream else 60.0, tokens_per_s=2.0), story)
    totals = served.ledger.totals()
    assert (totals.requests, totals.answers, totals.delivered_usd) == (1, 0, 0)
    assert totals.billed_undelivered_usd == totals.billed_usd > 0


def test_a_free_teacher_costs_nothing_and_a_file_is_only_added_to(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"

    async def story(session: aiohttp.ClientSession, served: Served) -> None:
        await ask(session, served)

    for lines in (1, 2):
        _, served = with_server(careful(prices=FREE, ledger=path), story)
        assert len(path.read_text().splitlines()) == lines
        (entry,) = served.ledger.entries
        assert (entry.billed, entry.cost) == (True, 0)


def test_a_reset_begins_anew() -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> Any:
        key = {"x-api-key": "k"}
        await ask(session, served, headers=key)
        async with session.post(f"{served.root}/mock/reset") as reply:
            assert reply.status == 200
        async with session.get(f"{served.root}/mock/ledger") as reply:
            emptied = await reply.json()
        await ask(session, served, headers=key)
        return emptied

    emptied, served = with_server(careful(), story)
    assert (emptied["requests"], emptied["billed_usd"], emptied["peak_in_flight"]) == (0, "0", 0)
    (entry,) = served.ledger.entries
    assert entry.label is not None
    assert (entry.number, entry.label.attempt) == (1, 0)


def test_without_a_cache_nothing_is_a_hit() -> None:
    turns = [{"role": "system", "content": "Think."}, question()["messages"][0]]

    async def story(session: aiohttp.ClientSession, served: Served) -> None:
        await ask(session, served, question(messages=turns))

    found = []
    for cache in (True, False):
        _, served = with_server(careful(cache=cache), story)
        usage = served.ledger.entries[0].usage
        assert usage is not None
        found.append((usage.hit, usage.miss))
    assert found == [(2, 3 - 1), (0, 4)]


@given(st.lists(st.tuples(usages, st.booleans()), max_size=30))
def test_no_cent_is_lost_in_the_sums(rows: list[tuple[Usage, bool]]) -> None:
    ledger = Ledger()
    for number, (usage, delivered) in enumerate(rows):
        cost = PRICES.cost(usage, "off-peak")
        ledger.add(
            Entry(
                number=number,
                label=None,
                fault=None,
                status=200,
                finish="stop",
                usage=usage,
                cost=cost,
                delivered=delivered,
                billed=True,
            )
        )
    totals = ledger.totals()
    tokens = [sum(getattr(usage, kind) for usage, _ in rows) for kind in ("hit", "miss", "output")]
    assert totals.billed_usd == PRICES.cost(Usage(*tokens), "off-peak")
    assert totals.billed_usd == totals.delivered_usd + totals.billed_undelivered_usd
    assert math.isclose(float(totals.as_json()["billed_usd"]), totals.billed_usd)


def test_a_ledger_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ChainForgeError, match="the ledger cannot be written"):
        Ledger(tmp_path)
