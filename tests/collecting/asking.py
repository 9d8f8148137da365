"""A mock teacher to ask, and the collector asking it as `dvc repro` does."""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from chainforge.config.collector import CollectorSettings
from chainforge.hookspecs import ApiTeacher, Teacher
from chainforge.jsonl import write_records
from chainforge.mock_teacher.ledger import Totals
from chainforge.mock_teacher.mock import MockTeacher
from chainforge.mock_teacher.script import FaultScript
from chainforge.mock_teacher.serve import serve_in_thread
from chainforge.plugins import load_plugins
from chainforge.records import Prompt, Trace
from chainforge.teachers.answers import answer_all
from chainforge.teachers.journal import read_journal
from chainforge.teachers.paid import Paid, read_paid
from chainforge.teachers.question import Question, questions
from chainforge.teachers.stops import CollectionStopped
from chainforge.teachers.traces import traces_of

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = load_plugins(ROOT / "plugins")
USD = {"hit": 0.003, "miss": 0.15, "output": 0.6}  # what the mock takes
SEED = 17


def prompts(n: int) -> list[Prompt]:
    source = PLUGINS.pick("prompt_sources", "procedural_reasoning").component
    return list(source(split="train", n=n, seed=SEED))


def in_process() -> Teacher:
    teacher: Teacher = PLUGINS.pick("teachers", "procedural").component(
        terse_fraction=0.35, wrong_fraction=0.03
    )
    return teacher


def by_api(url: str, plugin: str = "openai_compatible", **settings: Any) -> ApiTeacher:
    """A teacher pointed at a mock, which calls its model as asked: `procedural`."""
    chosen = {"base_url": url, "model": "procedural", "usd_per_million": USD, "max_tokens": 2000}
    if plugin == "anthropic":
        chosen |= {"base_url": url.removesuffix("/v1"), "thinking_tokens": 20}
    else:
        chosen |= {"preset": "generic"}
    teacher: ApiTeacher = PLUGINS.pick("teachers", plugin).component(**chosen | settings)
    return teacher


@dataclass(frozen=True)
class Run:
    """How one run ended, and what the mock's ledger says of it."""

    paid: Paid
    traces: list[Trace]
    asked: list[Question]
    ledger: Totals
    stopped: CollectionStopped | None
    late: int  # calls that were given up at the deadline: on a busy machine, any can be


def run(
    folder: Path,
    asked_about: list[Prompt],
    *,
    faults: FaultScript | None = None,
    samples: int = 1,
    mock: dict[str, Any] | None = None,
    teacher: dict[str, Any] | None = None,
    **settings: Any,
) -> Run:
    """Serve a mock, collect from it into `folder`, and read what is there."""
    served = MockTeacher(teachers=(in_process(),), faults=faults or FaultScript(), **mock or {})
    collector = CollectorSettings(**{"budget_usd": "none", "concurrency": 8, "deadline_s": 60.0} | settings)
    stopped = None
    with serve_in_thread(served) as server:
        api = by_api(server.url, **teacher or {})
        asked = list(questions(api, asked_about, samples, SEED))
        try:
            about = {"plugin": (teacher or {}).get("plugin", "openai_compatible")}
            answer_all(api, asked, folder, collector, about=about, base_s=0.01)
        except CollectionStopped as stop:
            stopped = stop
    paid = read_paid(folder)  # the server has ended: its ledger is complete
    late = sum(record.get("cause") == "deadline" for _, record in read_journal(folder))
    traces = list(traces_of(api, asked, folder, paid))
    return Run(paid, traces, asked, server.ledger.totals(), stopped, late)


def accounts_agree(run: Run) -> None:
    """The journal and the ledger are about the same money."""
    assert run.paid.spent <= run.ledger.delivered_usd <= run.paid.spent + run.paid.possibly
    assert run.late or run.paid.spent == run.ledger.delivered_usd
    assert run.ledger.billed_undelivered_usd <= run.paid.possibly
    unheard = run.paid.sent.total() - run.ledger.requests  # given up before the server had them
    assert unheard >= 0
    assert run.stopped is not None or unheard <= run.late


def write_prompts(path: Path, n: int) -> Path:
    write_records(path, prompts(n))
    return path


def usd(value: object) -> Decimal:
    return Decimal(str(value))
