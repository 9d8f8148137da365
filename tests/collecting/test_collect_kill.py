"""kill -9 at any moment: nothing that was answered is lost or paid for again."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from asking import ROOT, USD, in_process, write_prompts

from chainforge.mock_teacher.ledger import Ledger
from chainforge.mock_teacher.mock import MockTeacher
from chainforge.mock_teacher.script import FaultScript
from chainforge.mock_teacher.serve import serving
from chainforge.teachers.journal import NAME
from chainforge.teachers.paid import Paid, read_paid

pytestmark = pytest.mark.slow

PROMPTS, CONCURRENCY = 400, 32
FAULTS = FaultScript(rates={"reset_before": 0.02, "server_error": 0.02, "no_reasoning": 0.02}, seed=3)
MARKED = "sk-marked-5ac1d0e2"


def command(url: str, problems: Path, out: Path, *more: str) -> list[str]:
    usd = ", ".join(f"{kind}: {price}" for kind, price in USD.items())
    return [
        *(str(Path(sys.executable).parent / "chainforge"), "collect"),
        *("--problems", str(problems), "--out", str(out)),
        *("--teacher", "generic", "--model", "procedural", "--base-url", url, "--max-tokens", "2000"),
        *("--set", f"usd_per_million={{{usd}}}", "--budget-usd", "10", "--concurrency", str(CONCURRENCY)),
        *more,
    ]


def start(arguments: list[str], said: Path) -> subprocess.Popen[bytes]:
    with said.open("ab") as log:
        environment = os.environ | {"OPENAI_API_KEY": MARKED}
        return subprocess.Popen(arguments, cwd=ROOT, stdout=log, stderr=log, env=environment)


def answers_in(ledger: Ledger) -> Counter[tuple[str, int]]:
    """How often the mock delivered a whole answer to each question that was final."""
    done = [e for e in ledger.entries if e.delivered and e.fault != "no_reasoning" and e.label]
    return Counter((e.label.prompt, e.label.sample) for e in done if e.label)


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.long)])
def test_kills_lose_nothing_and_pay_for_nothing_twice(tmp_path: Path, kills: int) -> None:
    problems, chance = write_prompts(tmp_path / "p.jsonl", PROMPTS), random.Random(7)
    with serving(MockTeacher(teachers=(in_process(),), faults=FAULTS)) as undisturbed:
        assert start(command(undisturbed.url, problems, tmp_path / "whole"), tmp_path / "said").wait() == 0
    out, lost, alive, sent = tmp_path / "killed", 0, 0, 0
    journaled: set[str] = set()
    with serving(MockTeacher(teachers=(in_process(),), faults=FAULTS, latency_s=0.5)) as server:
        for number in range(kills):
            process = start(command(server.url, problems, out), tmp_path / "said")
            wait_for_flight(out, process, more_than=sent)
            if number % 2:
                wait_for_answers(out, process, more_than=len(journaled))
            time.sleep(chance.uniform(0.0, 1.0))
            alive += process.poll() is None  # all of them, where the machine has nothing else to do
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
            paid = read_paid(out)
            lost += len(journaled - set(paid.finals))
            journaled, sent = set(paid.finals), paid.sent.total()
        answered_before = len(journaled)
        assert start(command(server.url, problems, out), tmp_path / "said").wait() == 0
    delivered = answers_in(server.ledger)
    assert alive > 0, "the run ended before it was killed"
    assert answered_before > 0, "no kill came late enough to lose an answer"
    assert lost == 0
    assert len(delivered) == PROMPTS
    waste = server.ledger.totals().requests - PROMPTS - sum(server.ledger.totals().by_fault.values())
    assert waste <= kills * CONCURRENCY
    paid = read_paid(out)
    assert len(paid.finals) == PROMPTS
    assert len(paid.flying) <= kills * CONCURRENCY
    repaid = [key for key in paid.finals if paid.sent[key] > 1 and after_its_answer(out, key)]
    assert repaid == []
    assert (out / "traces.jsonl").read_bytes() == (tmp_path / "whole/traces.jsonl").read_bytes()
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert MARKED.encode() not in file.read_bytes(), file


def after_its_answer(folder: Path, fingerprint: str) -> bool:
    """Whether the journal sends that question once more behind its final answer."""
    lines = [line for line in (folder / NAME).read_text().splitlines() if fingerprint in line]
    final = next(i for i, line in enumerate(lines) if '"final":true' in line and '"kind":"answer"' in line)
    return any('"kind":"sent"' in line for line in lines[final + 1 :])


def test_ctrl_c_waits_for_the_calls_in_flight_and_twice_does_not(tmp_path: Path) -> None:
    problems = write_prompts(tmp_path / "p.jsonl", PROMPTS)
    with serving(MockTeacher(teachers=(in_process(),), latency_s=1.5)) as server:
        said = tmp_path / "said"
        process = start(command(server.url, problems, tmp_path / "out"), said)
        wait_for_flight(tmp_path / "out", process)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=600) == 130
        assert "stopped (Ctrl-C)" in said.read_text()
        assert "Traceback" not in said.read_text()
        paid = read_paid(tmp_path / "out")
        assert len(paid.finals) == sum(paid.sent.values()) > 0
    with serving(MockTeacher(teachers=(in_process(),), latency_s=900)) as server:
        again = start(command(server.url, problems, tmp_path / "out"), said)
        wait_for_flight(tmp_path / "out", again, more_than=len(paid.sent))
        again.send_signal(signal.SIGINT)
        time.sleep(0.2)
        again.send_signal(signal.SIGINT)
        assert again.wait(timeout=600) != 0, "long before there is an answer"
        assert "Traceback" not in said.read_text()
        assert read_paid(tmp_path / "out").flying


def wait_for_flight(folder: Path, process: subprocess.Popen[bytes], more_than: int = 0) -> None:
    """Until more calls were sent, or the process has ended."""
    wait_for(lambda paid: paid.sent.total() > more_than, folder, process)


def wait_for_answers(folder: Path, process: subprocess.Popen[bytes], more_than: int) -> None:
    """Until more questions have their answer, or the process has ended."""
    wait_for(lambda paid: len(paid.finals) > more_than, folder, process)


def wait_for(true: Callable[[Paid], bool], folder: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / NAME).exists() and true(read_paid(folder)):
            return
        time.sleep(0.05)
    assert process.poll() is not None, "nothing happens"
