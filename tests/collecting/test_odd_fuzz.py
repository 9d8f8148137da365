"""Answers that chance has changed: in their JSON, their events, or their bytes.

CHAINFORGE_FUZZ_RUNS=1000 pytest tests/collecting/test_odd_fuzz.py
"""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from odd_answers import DONE, bill, chunked, dumps, events, honest, just
from odd_faults import head_of, nested
from odd_runs import collect, from_an_honest_server, text
from odd_server import CLOSE, Asked, Said, Step, http

pytestmark = pytest.mark.usefixtures("quick")

RUNS = int(os.environ.get("CHAINFORGE_FUZZ_RUNS", "40"))
QUICK, ORDINARY = 3, 12  # of those runs: in the quick tests, in all but the long ones
PROMPTS, UNHARMED = 24, 4
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 7, 2**63, 10**400, 1.5, -0.0, 1e308, float("nan"), float("-inf")),
    *("", " ", "x", "[/x]", "stop", "null", "\x00", "\ud83d", "9" * 5000, "</think>", "<|channel|>", "�"),
    *([], {}, [None], [[]], {"": None}, [{}], {"text": []}, {"type": "thinking", "thinking": None}),
    *(nested(300), nested(900)),
)


def places(said: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value."""
    keys = range(len(said)) if isinstance(said, list) else list(said) if isinstance(said, dict) else ()
    for key in keys:
        yield said, key
        yield from places(said[key])


def spoil_json(said: Any, chance: random.Random) -> None:
    """Something in it is replaced, doubled or gone."""
    container, key = chance.choice(list(places(said)))
    match chance.randrange(4):
        case 0:
            del container[key]
        case 1:
            container[key] = [container[key], container[key]]
        case 2 if isinstance(container, dict):
            container[chance.choice(list(container))] = container[key]
        case _:
            container[key] = chance.choice(ODD)


def spoil_bytes(said: bytes, chance: random.Random) -> bytes:
    """A slice of it is gone, doubled, moved or changed."""
    start = chance.randrange(len(said))
    end = min(len(said), start + int(chance.expovariate(0.05)) + 1)
    piece, other = said[start:end], chance.randbytes(chance.randint(1, 4))
    place = chance.randrange(len(said))
    return chance.choice(
        (
            said[:start] + said[end:],
            said[:start] + piece + said[start:],
            said[:place] + piece + said[place:],
            said[:start] + other + said[end:],
            said[:start],
            said[start:],
        )
    )


def spoil_events(said: list[bytes], chance: random.Random) -> list[bytes]:
    """An event is gone, doubled, moved, or has other JSON."""
    place, other = chance.randrange(len(said)), chance.randrange(len(said))
    match chance.randrange(4):
        case 0:
            return said[:place] + said[place + 1 :]
        case 1:
            return [*said[:other], said[place], *said[other:]]
        case 2:
            said[place], said[other] = said[other], said[place]
        case _ if said[place] != DONE:
            whole = head_of(said[place])
            spoil_json(whole, chance)
            said[place] = event_of(whole)
    return said


def event_of(said: Any) -> bytes:
    """Half a character is escaped, as JSON has to."""
    return b"data: " + json.dumps(said).encode() + b"\n\n"


def spoilt(asked: Asked, seed: int) -> list[Step]:
    """An answer after one to three changes; the server hangs up behind it."""
    chance = random.Random(f"{seed} {asked.prompt}")
    answer, times = honest(asked), chance.randint(1, 3)
    how = chance.choice(("json", "json", "bytes", "events" if asked.streamed else "json"))
    if how == "json":
        for _ in range(times):
            spoil_json(answer, chance)
    if asked.streamed:
        said = [*events(answer), DONE]
        for _ in range(times if how == "events" else 0):
            said = spoil_events(said, chance)
        body = b"".join(said)
    else:
        body = json.dumps(answer).encode() if chance.random() < 0.5 else dumps(answer)
    if how == "bytes":
        body = spoil_bytes(body, chance)
    return [http(200, body, {"connection": "close"}), CLOSE] if chance.random() < 0.5 else chunked([body])


def marks(seed: int) -> list[pytest.MarkDecorator]:
    return [] if seed < QUICK else [pytest.mark.slow if seed < ORDINARY else pytest.mark.long]


@pytest.mark.dear
@pytest.mark.parametrize("wire", ["whole", "streamed"])
@pytest.mark.parametrize("seed", [pytest.param(seed, marks=marks(seed)) for seed in range(RUNS)])
def test_whatever_comes_no_answer_is_lost_and_the_money_adds_up(seed: int, wire: str, tmp_path: Path) -> None:
    def answers(asked: Asked) -> Said:
        if asked.number or asked.prompt in {text(number) for number in range(UNHARMED)}:
            return just(asked)
        return Said(steps=spoilt(asked, seed), tokens=bill(honest(asked)))

    ended = collect(tmp_path, PROMPTS, answers, concurrency=4, stream=wire == "streamed")
    assert ended.stopped is None or ended.stopped.exit_code == 10  # finish reasons that nobody knows
    assert len(ended.paid.finals) == PROMPTS
    assert len(ended.server.ledger) <= 2 * PROMPTS - UNHARMED
    assert ended.traces[:UNHARMED] == list(from_an_honest_server(PROMPTS))[:UNHARMED]
