"""The graph with a teacher behind an API: the same accepted examples, paid for once, and no key anywhere."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from clone import Clone, make_clone

from chainforge.cli.mock_teacher import load_teachers
from chainforge.jsonl import read_records
from chainforge.mock_teacher.mock import MockTeacher
from chainforge.mock_teacher.script import FaultScript
from chainforge.mock_teacher.serve import Served, serve_in_thread
from chainforge.records import Trace
from chainforge.teachers.paid import read_paid

pytestmark = pytest.mark.slow

MARKED = "-".join(("sk", "marked", "93c5f7aa41"))  # not in this file, which the clone has too
FAULTS = FaultScript(rates={"rate_limited": 0.05, "reset_before": 0.05, "no_reasoning": 0.05}, seed=1)


def ask_by_api(
    clone: Clone, server: Served, steps: Sequence[str] = ("collect_cot", "collect_general")
) -> None:
    """Point collecting steps at the mock, which calls its model as the teacher here calls itself."""
    for step in steps:
        clone.put(
            f"{step}.teacher",
            {
                "plugin": "openai_compatible",
                "preset": "generic",
                "base_url": server.url,
                "model": "procedural",
                "key_env": "DEEPSEEK_API_KEY",
                "max_tokens": 2000,
                "usd_per_million": {"hit": 0.003, "miss": 0.15, "output": 0.6},
            },
        )
    clone.put("collector.budget_usd", 1.0)


def traces(clone: Clone) -> list[Trace]:
    """Those of step collect_cot; white space at the end of a thought that was cut off is lost on an API."""
    found = read_records(clone.folder / "data/cot/traces.jsonl", Trace)
    return [replace(trace, reasoning=trace.reasoning.strip()) for trace in found]


def accepted(clone: Clone) -> list[bytes]:
    return [(clone.folder / "data" / kind / "accepted.jsonl").read_bytes() for kind in ("cot", "general")]


@pytest.mark.long
def test_a_teacher_behind_an_api_gives_the_same_examples_and_is_paid_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", MARKED)
    monkeypatch.chdir(root)
    clone = make_clone(tmp_path / "clone")
    clone.repro("sft_cold_start", "filter_general")
    here = accepted(clone)
    with serve_in_thread(MockTeacher(teachers=load_teachers("smoke"), faults=FAULTS, key=MARKED)) as server:
        ask_by_api(clone, server)
        filters = ["collect_cot", "filter_cot", "collect_general", "filter_general"]
        assert sorted(clone.repro("filter_cot", "filter_general")) == sorted(["lock", *filters])
        assert accepted(clone) == here
        assert clone.repro("sft_cold_start") == ["lock"]  # the same bytes: nothing after the filter runs
        requests = server.ledger.totals().requests
        clone.run("dvc", "repro", "--force", "--single-item", "collect_cot")
        assert server.ledger.totals().requests == requests
        clone.put("collect.samples", 2)
        clone.repro("filter_cot")
        assert server.ledger.totals().answers >= requests
    ledger = server.ledger.totals()
    journals = [read_paid(clone.folder / "collected" / step) for step in ("collect_cot", "collect_general")]
    assert sum(paid.spent for paid in journals) == ledger.delivered_usd
    assert json.loads((clone.folder / "data/cot/calls.json").read_text())["synthetic"] is True
    holding = [f for f in clone.folder.rglob("*") if f.is_file() and MARKED.encode() in f.read_bytes()]
    assert holding == []


@pytest.mark.long
def test_the_default_profile_accepts_the_same_examples_of_the_same_answers(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", MARKED)
    monkeypatch.chdir(root)
    clone = make_clone(tmp_path / "clone", profile="tiny")
    clone.repro("filter_cot")
    here, accepted_here = traces(clone), (clone.folder / "data/cot/accepted.jsonl").read_bytes()
    faults = FaultScript(rates={"rate_limited": 0.05, "reset_before": 0.05, "missing_usage": 0.05}, seed=1)
    with serve_in_thread(MockTeacher(teachers=load_teachers("tiny"), faults=faults, key=MARKED)) as server:
        ask_by_api(clone, server, ["collect_cot"])
        assert clone.repro("filter_cot") == ["lock", "collect_cot", "filter_cot"]
    assert traces(clone) == here
    assert (clone.folder / "data/cot/accepted.jsonl").read_bytes() == accepted_here
    assert server.ledger.totals().requests >= len(here) > 1000
    assert read_paid(clone.folder / "collected/collect_cot").spent == server.ledger.totals().delivered_usd
