"""kill -9 at any moment: nothing that was answered is lost or paid for again. And what the signals do.

Nothing here is timed: the server holds its answers back, so a run never ends before its signal comes.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from asking import ROOT
from odd_answers import just
from odd_faults import NAMED
from odd_runs import collect_command, from_an_honest_server, prompts
from odd_server import Asked, OddServer, Said

from chainforge.jsonl import write_records
from chainforge.teachers.journal import NAME
from chainforge.teachers.paid import Paid, read_paid

pytestmark = pytest.mark.slow

PROMPTS, CONCURRENCY = 400, 32
ANSWERED_FIRST = 0.7  # the part of all requests that the kills are spread over
FAULTY = [NAMED[name] for name in ("reset_before", "500", "429_json", "message_null", "cut_json")]
MARKED = "sk-marked-5ac1d0e2"
NOTED = "stopping"  # said when a signal was heard


def sometimes_faulty(asked: Asked) -> Said:
    chance = random.Random(asked.prompt)
    return chance.choice(FAULTY)(asked) if asked.number == 0 and chance.random() < 0.06 else just(asked)


def start(url: str, problems: Path, out: Path, said: Path) -> subprocess.Popen[bytes]:
    program = str(Path(sys.executable).parent / "chainforge")
    arguments = [program, *collect_command(url, problems, out, "--concurrency", str(CONCURRENCY))]
    with said.open("ab") as log:
        environment = os.environ | {"OPENAI_API_KEY": MARKED}
        return subprocess.Popen(arguments, cwd=ROOT, stdout=log, stderr=log, env=environment)


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    write_records(tmp_path / "p.jsonl", prompts(PROMPTS))
    return tmp_path / "p.jsonl"


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.long)])
def test_kills_lose_nothing_and_pay_for_nothing_twice(tmp_path: Path, problems: Path, kills: int) -> None:
    out, said, chance = tmp_path / "killed", tmp_path / "said", random.Random(7)
    journaled: set[str] = set()
    with OddServer(sometimes_faulty, free=0) as server:
        for number in range(kills):
            free = int(PROMPTS * ANSWERED_FIRST / kills)
            server.free = len(server.ledger) + free
            sent, answers = read_paid(out).sent.total(), len(journaled)
            process = start(server.url, problems, out, said)
            if number % 3 == 2:
                wait_for(paid_in(out, lambda paid, n=sent: paid.sent.total() > n), process)  # type: ignore[misc]
            else:  # some come in while it is killed, most calls are in flight for good
                enough = answers + chance.randint(1, free // 2)
                wait_for(paid_in(out, lambda paid, n=enough: len(paid.finals) >= n), process)  # type: ignore[misc]
            process.kill()
            assert process.wait() == -signal.SIGKILL
            finals = set(read_paid(out).finals)
            assert journaled <= finals
            journaled = finals
        assert journaled
        server.gate.set()
        assert start(server.url, problems, out, said).wait() == 0
    paid = read_paid(out)
    struck = sum(bool(entry.said.fault) for entry in server.ledger)
    assert len(paid.finals) == PROMPTS == len(server.seen)
    assert len(server.ledger) - PROMPTS - struck <= kills * CONCURRENCY
    assert len(paid.flying) <= kills * CONCURRENCY
    assert server.usd <= paid.spent + paid.possibly
    assert sent_after_its_answer(out) == []
    assert (out / "traces.jsonl").read_bytes().splitlines() == list(from_an_honest_server(PROMPTS))
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert MARKED.encode() not in file.read_bytes(), file


def sent_after_its_answer(folder: Path) -> list[str]:
    """Questions that the journal sends once more behind their final answer."""
    final: Counter[str] = Counter()
    again = []
    for line in map(json.loads, (folder / NAME).read_text().splitlines()):
        if line["kind"] == "answer" and line["final"]:
            final[line["fingerprint"]] += 1
        elif line["kind"] == "sent" and final[line["fingerprint"]]:
            again.append(line["prompt_id"])
    return again


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_signal_waits_for_the_calls_in_flight(
    tmp_path: Path, problems: Path, number: signal.Signals
) -> None:
    out, said = tmp_path / "out", tmp_path / "said"
    with OddServer(just, free=0) as server:
        process = start(server.url, problems, out, said)
        wait_for(lambda: len(server.ledger) > 0, process)
        process.send_signal(number)
        wait_for(lambda: NOTED in said.read_text(), process)
        server.gate.set()
        assert process.wait() == 130
    assert "Traceback" not in said.read_text()
    paid = read_paid(out)
    assert 0 < len(paid.finals) == paid.sent.total() == len(server.ledger) < PROMPTS
    assert (paid.spent, paid.possibly) == (server.usd, 0)


def test_a_second_ctrl_c_waits_for_nothing_and_says_what_is_given_up(tmp_path: Path, problems: Path) -> None:
    out, said = tmp_path / "out", tmp_path / "said"
    with OddServer(just, free=0) as server:
        process = start(server.url, problems, out, said)
        wait_for(lambda: len(server.ledger) > 0, process)
        process.send_signal(signal.SIGINT)
        wait_for(lambda: NOTED in said.read_text(), process)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    assert "Traceback" not in said.read_text()
    paid = read_paid(out)
    assert not paid.finals
    assert paid.possibly >= server.usd
    assert f"{len(server.ledger)} calls" in said.read_text()


def paid_in(folder: Path, true: Callable[[Paid], bool]) -> Callable[[], bool]:
    return lambda: (folder / NAME).exists() and true(read_paid(folder))


def wait_for(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Until that is true; the process must be alive, which nothing but a signal ends."""
    deadline = time.monotonic() + 600
    while not true():
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.05)
