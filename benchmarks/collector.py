"""The collector against the mock teacher on this machine: throughput, memory, a storm of 429, a long journal.

    python benchmarks/collector.py throughput 64 2        # concurrency, seconds per answer
    python benchmarks/collector.py throughput 64 1 0.01   # the same, with 1% of the calls refused at random
    python benchmarks/collector.py memory 20000           # requests
    python benchmarks/collector.py storm 40 256           # what the server takes, what the client wants
    python benchmarks/collector.py resume 100000          # answers in the journal

The mock is a process of its own, on the same cores. Each prints one JSON object.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from statistics import mean

import psutil

from chainforge.config.collector import CollectorSettings
from chainforge.hookspecs import ApiTeacher
from chainforge.jsonl import write_records
from chainforge.plugins import load_plugins
from chainforge.providers.calls import Reply, Usage
from chainforge.records import Prompt
from chainforge.teachers import record
from chainforge.teachers.answers import answer_all
from chainforge.teachers.collector import Collector
from chainforge.teachers.journal import NAME, Journal, append
from chainforge.teachers.question import Question, questions
from chainforge.teachers.verdict import Verdict

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = Path(sys.executable).parent / "chainforge"
TOKENS = 600  # of an answer, median
ROUNDS = {"throughput": 20, "storm": 40}  # answers per place in flight


def main() -> None:
    arguments = ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("what", choices=("throughput", "memory", "storm", "resume"))
    arguments.add_argument("numbers", nargs="+", type=float)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = globals()[given.what](Path(folder), *given.numbers)
    print(json.dumps({"benchmark": given.what, **figures}))


def throughput(folder: Path, concurrency: float, latency_s: float, refused: float = 0) -> dict[str, float]:
    """The fraction of concurrency / latency that was reached, from the first request to the last answer."""
    places = int(concurrency)
    asked = places * ROUNDS["throughput"]
    faults = ("--faults", f"rate_limited={refused}") if refused else ()
    with mock("--latency", str(latency_s), *faults) as (url, server):
        seconds, cpu_s, _ = collect(folder, url, asked, places)
        server_cpu_s = sum(server.cpu_times()[:2])
    return {
        "concurrency": places,
        "latency_s": latency_s,
        "refused": refused,
        "requests": asked,
        "wall_s": round(seconds, 1),
        "fraction_of_ideal": round(asked * latency_s / places / seconds, 3),
        "client_cpu_ms_per_request": round(1000 * cpu_s / asked, 2),
        "server_cpu_ms_per_request": round(1000 * server_cpu_s / asked, 2),
    }


def memory(folder: Path, requests: float) -> dict[str, object]:
    """Resident memory of the client as the requests go by."""
    seen: dict[int, float] = {}

    def watch(collector: Collector) -> None:
        mark = collector.tally.done // 2000 * 2000
        if mark not in seen:
            seen[mark] = round(psutil.Process().memory_info().rss / 2**20, 1)

    with mock("--latency", "0.1") as (url, _):
        seconds, _, _ = collect(folder, url, int(requests), 64, watch)
    return {"requests": int(requests), "wall_s": round(seconds, 1), "rss_mb_after": seen}


def storm(folder: Path, cap: float, wanted: float) -> dict[str, object]:
    """How soon the server is near its cap for good, how near, and how many requests it refuses after that."""
    seen: list[tuple[float, int, int, int]] = []
    start = time.monotonic()

    def watch(c: Collector) -> None:
        if c.tally.total - c.tally.done > len(c.flying):  # not the end, when nothing is left to ask
            seen.append((time.monotonic() - start, len(c.flying), c.tally.requests, c.tally.causes["busy"]))

    with mock("--latency", "2", "--cap", str(int(cap))) as (url, _):
        collect(folder, url, int(cap) * ROUNDS["storm"], int(wanted), watch)
    later = [row for row in seen if row[0] > 60] or seen[len(seen) // 2 :]
    requests, refused = (later[-1][i] - later[0][i] for i in (2, 3))
    return {
        "cap": cap,
        "wanted": wanted,
        "within_20_percent_for_good_s": settled([(at, n) for at, n, *_ in seen], cap),
        "in_flight_after_60_s": [min(row[1] for row in later), max(row[1] for row in later)],
        "mean_in_flight_after_60_s": round(mean(row[1] for row in later), 1),
        "refused_after_60_s": round(refused / max(requests, 1), 4),
    }


def settled(in_flight: list[tuple[float, int]], cap: float) -> float | None:
    """The first moment after which no sample is farther than 20% from the cap; None if there is none."""
    last_off = max((at for at, n in in_flight if abs(n - cap) > cap / 5), default=0.0)
    return next((round(at, 1) for at, _ in in_flight if at > last_off), None)


def resume(folder: Path, answers: float) -> dict[str, float]:
    """Seconds from the command to its first request: this many answers in the journal, one missing."""
    prompts = list(sums(int(answers) + 1))
    write_records(folder / "prompts.jsonl", prompts)
    served = folder / "ledger.jsonl"
    with mock("--ledger", str(served)) as (url, _):
        size = write_journal(folder / "out", teacher(url), prompts[:-1])
        options = ["--problems", folder / "prompts.jsonl", "--out", folder / "out", "--teacher", "generic"]
        options += ["--model", "m", "--base-url", url, "--budget-usd", "none", "--max-tokens", "32768"]
        start = time.monotonic()
        process = psutil.Popen([PROGRAM, "collect", *options], stderr=subprocess.DEVNULL)
        while process.poll() is None and not served.stat().st_size:
            time.sleep(0.01)
        first, first_cpu_s = time.monotonic() - start, sum(process.cpu_times()[:2])
        process.wait()
    return {
        "answers": int(answers),
        "journal_mb": round(size / 2**20),
        "first_request_s": round(first, 2),
        "first_request_cpu_s": round(first_cpu_s, 2),
        "whole_command_s": round(time.monotonic() - start, 2),
    }


def write_journal(folder: Path, api: ApiTeacher, prompts: list[Prompt]) -> int:
    """A journal as the collector would have left it, with answers of about four kilobytes; its size."""
    text = "so 12 + 30 = 42, " * 200
    message = {"role": "assistant", "content": "42", "reasoning_content": text}
    raw = {"model": "m", "choices": [{"finish_reason": "stop", "message": message}], "usage": {}}
    reply = Reply(reasoning=text, content="42", source="x", finish="stop", usage=Usage(0, 9, 900), model="m")
    now, cost, verdict = datetime.now(UTC), Decimal("0.0005"), Verdict("keep", "answered", answered=True)
    with Journal(folder) as journal:
        import orjson

        lines = [record.run({"plugin": "openai_compatible"}, api.identity, None)]
        for question in questions(api, prompts, 1, 17):
            about = record.about(question, 0)
            done = record.answer(about, now, reply, raw, cost=cost, window="off-peak", verdict=verdict)
            lines += [record.sent(about, now, cost), done | {"messages": question.messages}]
            if len(lines) > 2000:
                append(journal.file, b"".join(orjson.dumps(line) + b"\n" for line in lines))
                lines.clear()
        append(journal.file, b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return (folder / NAME).stat().st_size


def sums(n: int) -> Iterator[Prompt]:
    """Prompts that only the mock's filler answers."""
    for i in range(n):
        yield Prompt(f"p{i}", "toy", ({"role": "user", "content": f"Think about {i} for a while."},), "42")


def teacher(url: str) -> ApiTeacher:
    """Teacher openai_compatible as its defaults are, pointed at the mock."""
    component = load_plugins(ROOT / "plugins").pick("teachers", "openai_compatible").component
    made: ApiTeacher = component(preset="generic", base_url=url, model="m")
    return made


def collect(
    folder: Path, url: str, n: int, concurrency: int, watch: object = lambda _: None
) -> tuple[float, float, list[Question]]:
    """(seconds, CPU seconds of this process, what was asked)."""
    api = teacher(url)
    asked = list(questions(api, sums(n), 1, 17))
    settings = CollectorSettings(budget_usd="none", concurrency=concurrency)
    start, cpu = time.monotonic(), cpu_s()
    paid = answer_all(api, asked, folder / "out", settings, about={}, watch=watch)  # type: ignore[arg-type]
    seconds, used = time.monotonic() - start, cpu_s() - cpu
    assert len(paid.finals) == n
    return seconds, used, asked


def cpu_s() -> float:
    """Processor seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextmanager
def mock(*options: str) -> Iterator[tuple[str, psutil.Process]]:
    """(URL, process) of a mock teacher that answers everything with filler."""
    command = [PROGRAM, "mock-teacher", "--port", "0", "--profile", "none", "--dialect", "deepseek"]
    started = subprocess.Popen(
        [*command, "--filler-tokens", str(TOKENS), *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    url = next(word for word in started.stdout.readline().split() if word.startswith("http"))
    try:
        yield url, psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait()


if __name__ == "__main__":
    main()
