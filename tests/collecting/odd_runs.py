"""The collector asking an odd server, and what is wrong with how that ended.

    python tests/collecting/odd_runs.py [NAME ...]

prints the table: every fault alone, whole and streamed.
"""

import functools
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from asking import PLUGINS, ROOT
from click.testing import CliRunner
from odd_answers import just
from odd_faults import FAULTS, Odd
from odd_server import USD, Asked, OddServer, Said

from chainforge.cli import cli
from chainforge.config.collector import CollectorSettings
from chainforge.errors import ChainForgeError
from chainforge.hookspecs import ApiTeacher
from chainforge.jsonl import write_records
from chainforge.records import Prompt
from chainforge.teachers import limit
from chainforge.teachers.answers import Watch, answer_all
from chainforge.teachers.journal import NAME
from chainforge.teachers.paid import Paid, read_paid
from chainforge.teachers.question import questions
from chainforge.teachers.traces import traces_of

ALONE = 5  # prompts
STRUCK = frozenset({1, 3})  # of those
SILENT_S = 4.0
COLUMNS = ("completed", "requests", "billed USD", "spent USD", "possibly USD", "same bytes", "wrong")
Answers = Callable[[Asked], Said]


def text(number: int) -> str:
    return f"What is {number} times 7?"


def prompts(count: int) -> list[Prompt]:
    """p0, p1, …: every one with a text of its own."""
    return [Prompt(f"p{n}", "odd", ({"role": "user", "content": text(n)},)) for n in range(count)]


def choice(plugin: str, url: str, **settings: Any) -> dict[str, Any]:
    """A teacher's settings."""
    chosen = {"model": "odd-1", "usd_per_million": USD, "max_tokens": 2000}
    if plugin == "anthropic":
        return chosen | {"base_url": url.removesuffix("/v1"), "thinking_tokens": 1024} | settings
    return chosen | {"preset": "generic", "base_url": url} | settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended: what the collector says, and what the server's ledger does."""

    server: OddServer
    paid: Paid
    traces: list[bytes]
    journal: bytes
    stopped: ChainForgeError | None

    @property
    def accounted(self) -> Decimal:
        return self.paid.spent + self.paid.possibly


def collect(
    folder: Path,
    count: int,
    answers: Answers = just,
    *,
    server: OddServer | None = None,
    samples: int = 1,
    host: str = "127.0.0.1",
    plugin: str = "openai_compatible",
    said: dict[str, Any] | None = None,
    watch: Watch = lambda _: None,
    cleared: Callable[[], object] = lambda: None,
    **settings: Any,
) -> Ended:
    """Ask about the first `count` prompts, with `said` for the teacher; then `cleared`, and write traces."""
    chosen = CollectorSettings(**{"budget_usd": "none", "concurrency": 1, "deadline_s": 60.0} | settings)
    stopped = None
    with server or OddServer(answers) as odd:
        teacher = choice(plugin, odd.url.replace("127.0.0.1", host), **said or {})
        asked_of: ApiTeacher = PLUGINS.pick("teachers", plugin).component(**teacher)
        asked = list(questions(asked_of, prompts(count), samples, 17))
        about = {"plugin": plugin, **teacher}
        try:
            answer_all(asked_of, asked, folder, chosen, about=about, base_s=0.01, watch=watch)
        except ChainForgeError as stop:
            stopped = stop
    cleared()
    paid = read_paid(folder)
    write_records(folder / "traces.jsonl", traces_of(asked_of, asked, folder, paid))
    lines = (folder / "traces.jsonl").read_bytes().splitlines()
    return Ended(server=odd, paid=paid, traces=lines, journal=(folder / NAME).read_bytes(), stopped=stopped)


def by_command(folder: Path, about: Sequence[Prompt], answers: Answers, *more: str) -> str:
    """The same by `chainforge collect` in the project's folder, in this process; what it says."""
    write_records(folder.with_name(f"{folder.name}.problems.jsonl"), about)
    with OddServer(answers) as server:
        command = collect_command(server.url, folder.with_name(f"{folder.name}.problems.jsonl"), folder)
        result = CliRunner().invoke(cli, [*command, *more])
    assert result.exit_code == 0, result.output
    return result.output


def at_home(patch: pytest.MonkeyPatch) -> None:
    """In the project, whose plugins are looked at once."""
    patch.chdir(ROOT)
    for user in ("collect_verify", "collect_plan"):
        patch.setattr(f"chainforge.cli.{user}.load_plugins", lambda: PLUGINS, raising=False)


def collect_command(url: str, problems: Path, out: Path, *more: str) -> list[str]:
    usd = ", ".join(f"{kind}: {price}" for kind, price in USD.items())
    return [
        *("collect", "--problems", str(problems), "--out", str(out)),
        *("--teacher", "generic", "--model", "odd-1", "--base-url", url, "--max-tokens", "2000"),
        *("--set", f"usd_per_million={{{usd}}}", "--budget-usd", "10", *more),
    ]


@functools.cache
def from_an_honest_server(count: int, samples: int = 1) -> tuple[bytes, ...]:
    """The traces."""
    with tempfile.TemporaryDirectory() as folder:
        return tuple(collect(Path(folder), count, samples=samples, concurrency=8).traces)


def striking(fault: Odd, otherwise: Answers = just) -> Answers:
    """That fault at the first request for each prompt of STRUCK; at all of them, if it stays.

    What stops a run strikes all prompts but the first.
    """
    texts = {text(number) for number in STRUCK}

    def answers(asked: Asked) -> Said:
        if fault.then == "stops":
            return fault(asked) if asked.prompt != text(0) else otherwise(asked)
        strikes = asked.prompt in texts and (fault.then == "skipped" or asked.number == 0)
        return fault(asked) if strikes else otherwise(asked)

    return answers


def alone(
    fault: Odd, wire: str, folder: Path, otherwise: Answers = just, plugin: str = "openai_compatible"
) -> Ended:
    """A small run in which nothing else goes wrong, and the first prompt is answered first."""
    more: dict[str, Any] = {"deadline_s": SILENT_S, "concurrency": 8} if fault.silent else {}
    answers = striking(fault, otherwise)
    return collect(folder, ALONE, answers, stream=wire == "streamed", plugin=plugin, **more)


def wrong(fault: Odd, ended: Ended) -> Iterator[str]:
    """What a good client would have done in another way."""
    yield from wrong_stop(fault, ended) if fault.then == "stops" else wrong_answers(fault, ended)
    yield from wrong_money(fault, ended)
    for entry in ended.server.ledger:
        if entry.said.mark.encode() not in ended.journal:
            yield f"{entry.prompt} {entry.said.mark} was paid, and is not in the journal"


def wrong_stop(fault: Odd, ended: Ended) -> Iterator[str]:
    if not ended.stopped or ended.stopped.exit_code != fault.code:
        yield f"stop {fault.code} is due: {ended.stopped!r}"
    if len(ended.paid.finals) != 1 or max(ended.server.seen.values()) > 2:
        yield f"{len(ended.paid.finals)} answers and {len(ended.server.ledger)} requests before the stop"


def wrong_answers(fault: Odd, ended: Ended) -> Iterator[str]:
    """Every question that can be answered is, with as few calls as can be."""
    if ended.stopped and ended.stopped.exit_code != fault.code:
        yield f"stopped: {ended.stopped}"
    requests, finals, struck = len(ended.server.ledger), len(ended.paid.finals), len(STRUCK)
    due = ALONE - struck * (fault.then == "skipped")
    if finals != due:
        yield f"{finals} of {due} have their answer"
    fewest = ALONE + struck * (fault.then == "again")
    late = ended.journal.count(b'"cause":"deadline"')  # on a busy machine, an honest call can be that, too
    most = fewest + max(struck * (fault.then == "skipped"), late)
    if not fewest <= requests <= most:
        yield f"{requests} requests instead of {fewest}"
    yield from wrong_traces(fault, ended.traces)


def wrong_money(fault: Odd, ended: Ended) -> Iterator[str]:
    billed, spent, possibly = ended.server.usd, ended.paid.spent, ended.paid.possibly
    if billed > spent + possibly:
        yield f"{billed} USD billed, {spent + possibly} accounted for"
    if fault.exact and (spent, possibly) != (billed, 0):
        yield f"{billed} USD billed, {spent} spent, {possibly} possibly"


def wrong_traces(fault: Odd, traces: Sequence[bytes]) -> Iterator[str]:
    for number, (got, honest) in enumerate(zip(traces, from_an_honest_server(ALONE), strict=True)):
        if number not in STRUCK or (fault.same and fault.then in ("answered", "again")):
            if got != honest:
                yield f"p{number} is {got.decode()} instead of {honest.decode()}"
        elif fault.then in ("answered", "again") and b'"finish":"stop"' not in got.replace(b" ", b""):
            yield f"p{number} has no answer: {got.decode()}"
        elif fault.then in ("kept", "skipped") and b'"finish":"stop"' in got.replace(b" ", b""):
            yield f"p{number} would be trained on: {got.decode()}"


def wires(fault: Odd) -> list[str]:
    return [fault.only] if fault.only else ["whole", "streamed"]


def table(faults: Sequence[Odd]) -> Iterator[str]:
    """In Markdown."""
    yield f"| fault | wire | then | {' | '.join(COLUMNS)} |"
    yield "|---" * (3 + len(COLUMNS)) + "|"
    for fault in faults:
        for wire in wires(fault):
            with tempfile.TemporaryDirectory() as folder:
                yield f"| {fault.name[:40]} | {wire} | {fault.then} | {row(fault, wire, Path(folder))} |"


def row(fault: Odd, wire: str, folder: Path) -> str:
    try:
        ended = alone(fault, wire, folder)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    same = sum(a == b for a, b in zip(ended.traces, from_an_honest_server(ALONE), strict=True))
    counts = f"{len(ended.paid.finals)} of {ALONE} | {len(ended.server.ledger)}"
    money = f"{ended.server.usd:.8f} | {ended.paid.spent:.8f} | {ended.paid.possibly:.8f}"
    return f"{counts} | {money} | {same} of {ALONE} | {'; '.join(wrong(fault, ended))[:300]}"


def hurry(patch: pytest.MonkeyPatch) -> None:
    """Clients share one set of root certificates, and nobody waits for minutes, whatever the server does."""
    patch.setattr(ssl, "create_default_context", shared_context)
    patch.setattr(limit, "LONGEST_RETRY_AFTER_S", 0.3)
    patch.setattr(limit, "LONGEST_HOLD_S", 0.1)


shared_context = functools.cache(ssl.create_default_context)

if __name__ == "__main__":
    named = sys.argv[1:]
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        for line in table([fault for fault in FAULTS if not named or fault.name in named]):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
