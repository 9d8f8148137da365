"""Who is let in: keys, limits, models, paths."""

import asyncio
import time
from collections import Counter
from typing import Any

import aiohttp
import orjson
import pytest
from mock_asking import KEY, ask, careful, label, question, with_server

from chainforge.errors import ChainForgeError
from chainforge.mock_teacher.limits import Limits
from chainforge.mock_teacher.mock import MockTeacher
from chainforge.mock_teacher.refused import Refused
from chainforge.mock_teacher.serve import Served


def statuses(mock: MockTeacher, *requests: tuple[dict[str, Any] | None, dict[str, str] | None]) -> list[int]:
    async def story(session: aiohttp.ClientSession, served: Served) -> list[int]:
        return [(await ask(session, served, body, headers))[0] for body, headers in requests]

    found, _ = with_server(mock, story)
    return list(found)


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


def test_so_many_a_minute_and_then_no_more_until_the_minute_is_over() -> None:
    now = 0.0
    limits = Limits(None, 3, 20.0, clock=lambda: now)
    admitted, refusals = [], []
    for second in range(130):
        now = float(second)
        try:
            limits.enter()
        except Refused as refused:
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
        (question(model="deepseek-reasoner"), "Model Not Exist"),
        (question(model="deepseek-chat"), "Model Not Exist"),
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


def test_other_providers_know_any_model() -> None:
    assert statuses(careful(dialect="vllm"), (question(model="deepseek-reasoner"), None)) == [200]


def test_a_body_that_is_not_json_is_a_bad_request() -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> int:
        async with session.post(f"{served.url}/chat/completions", data=b"{", headers=KEY) as reply:
            return reply.status

    assert with_server(careful(), story)[0] == 400


@pytest.mark.parametrize("dialect", ["deepseek", "anthropic"])
def test_every_path_works_with_and_without_v1_and_others_do_not_exist(dialect: str) -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for path in ("/models", "/user/balance", "/chat/completions", "/messages", "/embeddings"):
            for root in (served.root, served.url):
                method = "GET" if path in ("/models", "/user/balance") else "POST"
                async with session.request(method, root + path, json=question(), headers=label()) as reply:
                    found.setdefault(path, []).append(reply.status)
                    assert reply.content_type == "application/json"
        return found

    found, _ = with_server(careful(dialect=dialect), story)
    assert found.pop("/embeddings") == [404, 404]
    assert found.pop("/chat/completions") == ([404, 404] if dialect == "anthropic" else [200, 200])
    assert set(map(tuple, found.values())) == {(200, 200)}


def test_models_and_balance_serve_a_check_before_the_run() -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> tuple[Any, Any, int]:
        async with session.get(f"{served.url}/models", headers=KEY) as reply:
            models = await reply.json()
        async with session.get(f"{served.root}/user/balance", headers=KEY) as reply:
            balance = await reply.json()
        async with session.get(f"{served.url}/models") as reply:
            return models, balance, reply.status

    (models, balance, without_key), _ = with_server(careful(balance_usd="7.50"), story)
    assert [row["id"] for row in models["data"]] == ["deepseek-flash", "deepseek-v4-pro"]
    assert balance["is_available"] is True
    assert balance["balance_infos"][0]["total_balance"] == "7.50"
    assert without_key == 401


@pytest.mark.parametrize(
    "options",
    [{"dialect": "klingon"}, {"latency_s": -1.0}, {"retry_after_s": -1.0}, {"tokens_per_s": 0.0}, {"cap": 0}],
)
def test_a_mock_that_makes_no_sense_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ChainForgeError):
        MockTeacher(**options)
