"""The server: who is let in, what the ledger has of it, and that nothing is left behind at the end."""

import asyncio
import json
import math
import threading
import time
import urllib.request
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mock_asking import KEY, ask, careful, label, question, with_server

from chainforge.errors import ChainForgeError
from chainforge.mock_teacher.faults import FAULTS
from chainforge.mock_teacher.ledger import Entry, Ledger
from chainforge.mock_teacher.mock import PRICES, MockTeacher
from chainforge.mock_teacher.request import Label, Refusal
from chainforge.mock_teacher.script import FaultScript
from chainforge.mock_teacher.serve import Served, serve, serve_in_thread
from chainforge.mock_teacher.server import Limits
from chainforge.providers.calls import Usage
from chainforge.providers.prices import FREE


def statuses(mock: MockTeacher, *requests: tuple[dict[str, Any] | None, dict[str, str] | None]) -> list[int]:
    async def story(session: aiohttp.ClientSession, served: Served) -> list[int]:
        return [(await ask(session, served, body, headers))[0] for body, headers in requests]

    found, _ = with_server(mock, story)
    return list(found)


@pytest.mark.slow
@pytest.mark.parametrize("retry_after_s", [None, 0.5])
def test_above_the_cap_the_next_is_refused_at_once(retry_after_s: float | None) -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> list[tuple[int, str | None, float]]:
        async def one(number: int) -> tuple[int, str | None, float]:
            start = time.monotonic()
            url = f"{served.url}/chat/completions"
            async with session.post(url, json=question(), headers=label(f"p{number}")) as reply:
                await reply.read()
            return reply.status, reply.headers.get("Retry-After"), time.monotonic() - start

        return await asyncio.gather(*map(one, range(12)))

    found, served = with_server(careful(cap=4, latency_s=1.0, retry_after_s=retry_after_s), story)
    assert Counter(status for status, _, _ in found) == {200: 4, 429: 8}
    assert served.ledger.peak_in_flight == 4
    assert served.ledger.totals().by_status == {"200": 4, "429": 8}
    for status, header, _ in found:
        assert header == ("0.5" if status == 429 and retry_after_s else None)
    refused, answered = ([took for got, _, took in found if got == status] for status in (429, 200))
    assert max(refused) < min(answered)
    assert min(answered) >= 1.0


def test_the_limit_of_a_minute_lets_no_more_in_until_that_minute_is_over() -> None:
    now = 0.0
    limits = Limits(None, 3, 20.0, clock=lambda: now)
    admitted, refusals = [], []
    for second in range(130):
        now = float(second)
        try:
            limits.enter()
        except Refusal as refused:
            refusals.append((refused.status, refused.retry_after_s))
        else:
            admitted.append(second)
    assert set(refusals) == {(429, 20.0)}
    assert admitted == [0, 1, 2, 60, 61, 62, 120, 121, 122]


def test_who_was_refused_takes_no_place() -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> list[int]:
        return [(await ask(session, served, None, label(f"p{i}")))[0] for i in range(5)]

    found, served = with_server(careful(cap=1, rpm=3), story)
    assert found == [200, 200, 200, 429, 429]
    assert served.ledger.peak_in_flight == 1


def test_a_key_is_needed_and_a_particular_one_if_so_configured() -> None:
    given = [{"X-Odd": "1"}, {"Authorization": "Bearer "}, {"Authorization": "Bearer a"}, {"x-api-key": "b"}]
    assert statuses(careful(), *((None, headers) for headers in given)) == [401, 401, 200, 200]
    assert statuses(careful(key="b"), *((None, headers) for headers in given)) == [401, 401, 401, 200]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (question(max_tokens=0), "Invalid max_tokens"),
        (question(max_tokens="many"), "Invalid max_tokens"),
        (question(model=None), "needs a model"),
        (question(messages=[]), "needs messages"),
        (question(messages=[{"role": "system", "content": "x"}]), "needs messages"),
        (question(messages=["hello"]), "a message needs a role"),
        (question(n=4), "n must be 1"),
    ],
)
def test_what_no_provider_would_take_is_a_bad_request(body: dict[str, Any], message: str) -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> tuple[int, bytes]:
        return await ask(session, served, body)

    (status, reply), served = with_server(careful(), story)
    assert status == 400
    error = orjson.loads(reply)["error"]
    assert message in error["message"]
    assert error["type"] == error["code"] == "invalid_request_error"
    assert served.ledger.totals().billed_usd == 0


def test_a_body_that_is_not_json_is_a_bad_request() -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> int:
        async with session.post(f"{served.url}/chat/completions", data=b"{", headers=KEY) as reply:
            return reply.status

    assert with_server(careful(), story)[0] == 400


@pytest.mark.parametrize("dialect", ["deepseek", "anthropic"])
def test_every_path_works_with_and_without_v1_and_others_do_not_exist(dialect: str) -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for path in ("/chat/completions", "/messages", "/embeddings"):
            for root in (served.root, served.url):
                async with session.post(root + path, json=question(), headers=label()) as reply:
                    found.setdefault(path, []).append(reply.status)
                    assert reply.content_type == "application/json"
        return found

    found, _ = with_server(careful(dialect=dialect), story)
    assert found.pop("/embeddings") == [404, 404]
    assert found.pop("/chat/completions") == ([404, 404] if dialect == "anthropic" else [200, 200])
    assert found == {"/messages": [200, 200]}


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize("name", ["hang", "blank_lines_endless"])
def test_it_ends_though_requests_hang_and_leaves_no_task(name: str) -> None:
    async def run() -> tuple[float, int]:
        script = FaultScript(rates={name: 1.0}, blank_s=0.01)
        async with aiohttp.ClientSession() as session:
            async with serve(careful(faults=script)) as served:
                asking = [asyncio.create_task(ask(session, served, None, label(f"p{i}"))) for i in range(20)]
                while served.ledger.peak_in_flight < 20:
                    await asyncio.sleep(0.01)
                start = time.monotonic()
            took = time.monotonic() - start
            ended = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(error, aiohttp.ClientError) for error in ended)
        assert len(served.ledger.entries) == 20
        await asyncio.sleep(0)
        return took, len(asyncio.all_tasks())

    took, tasks = asyncio.run(run())
    assert took < 60
    assert tasks == 1  # this one


@pytest.mark.slow
def test_answers_take_as_long_as_they_should() -> None:
    async def timed(stream: bool) -> list[float]:
        mock = careful(latency_s=0.2, tokens_per_s=100.0)
        async with serve(mock) as served, aiohttp.ClientSession() as session:
            start, arrivals = time.monotonic(), []
            url, body = f"{served.url}/chat/completions", question(stream=stream)
            async with session.post(url, json=body, headers=label()) as reply:
                async for _ in reply.content.iter_any():
                    arrivals.append(time.monotonic() - start)
            return arrivals

    (at_once,) = asyncio.run(timed(stream=False))
    assert at_once >= 0.2
    first, *_, last = asyncio.run(timed(stream=True))
    assert first >= 0.2
    assert last - first >= 0.15  # some twenty events


def test_a_thread_serves_programs_that_are_not_asynchronous() -> None:
    before = threading.active_count()
    with serve_in_thread(careful()) as served:
        asked = urllib.request.Request(
            f"{served.url}/chat/completions", json.dumps(question()).encode(), label(), method="POST"
        )
        with urllib.request.urlopen(asked) as reply:
            answer = json.load(reply)
    assert answer["choices"][0]["message"]["content"] == "364"
    assert served.ledger.totals().answers == 1
    assert threading.active_count() == before


def test_a_port_that_is_taken_is_an_error_in_the_thread_too() -> None:
    with (
        serve_in_thread(careful()) as served,
        pytest.raises(ChainForgeError, match=r"cannot be served(.|\n)*name another port"),
        serve_in_thread(careful(), port=served.port),
    ):
        pass


def test_an_error_in_the_block_comes_out_and_the_server_ends() -> None:
    with pytest.raises(KeyError), serve_in_thread(careful()) as served:
        raise KeyError
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(served.url)
