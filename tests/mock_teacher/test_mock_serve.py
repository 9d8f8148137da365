"""Serving: it starts, it ends whatever is still open, and it leaves nothing behind."""

import asyncio
import json
import threading
import time
import urllib.request

import aiohttp
import pytest
from mock_asking import ask, careful, label, question

from chainforge.errors import ChainForgeError
from chainforge.mock_teacher.script import FaultScript
from chainforge.mock_teacher.serve import serve, serving


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
    with serving(careful()) as served:
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
        serving(careful()) as served,
        pytest.raises(ChainForgeError, match=r"cannot be served(.|\n)*name another port"),
        serving(careful(), port=served.port),
    ):
        pass


def test_an_error_in_the_block_comes_out_and_the_server_ends() -> None:
    with pytest.raises(KeyError), serving(careful()) as served:
        raise KeyError
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(served.url)
