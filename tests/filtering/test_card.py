"""The data-set card: what the hub reads, numbers that add up, hostile names kept harmless."""

import json
import re
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from fakes import SUPERCOT, prompt
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from chainforge.config.filter import FilterSettings
from chainforge.errors import ChainForgeError
from chainforge.filtering.card.read_calls import read_calls
from chainforge.filtering.card.write import DataSet, cell, data_card, quantiles
from chainforge.filtering.funnel import Funnel
from chainforge.jsonl import write_records
from chainforge.loops.filter import example
from chainforge.outputs import sha256_of
from chainforge.records import Prompt, Trace

SERVED = {
    "teacher": "deepseek",
    "parameters": {"model": "deepseek-flash", "effort": "high"},
    "models": {"deepseek-flash-1124": 2, "odd|`name`\n<b>": 1},
    "synthetic": False,
    "first_day": "2026-11-23",
    "last_day": "2026-11-24",
    "requests": 1234,
    "answers": 3,
    "possibly_paid": 2,
    "tokens": {"hit": 10, "miss": 20, "output": 54321, "reasoning": 50000},
    "cost_usd": "12.345678",
    "price_table": "deepseek 2026-11-15",
}
IN_PROCESS = dict.fromkeys(SERVED) | {
    "teacher": "procedural",
    "parameters": {"wrong_fraction": 0.03},
    "models": {"procedural": 1215},
    "synthetic": True,
    "answers": 1215,
    "possibly_paid": 0,
}
SETTINGS = {
    "output": "data/accepted.jsonl",
    "card": "data/README.md",
    "prompts": "data/prompts.jsonl",
    "traces": "data/traces.jsonl",
    "calls": "data/calls.json",
}
TRACES = [Trace(f"p{n}", "r" * n, "42", "stop", "toy") for n in range(1, 4)]


def card_of(calls: dict[str, Any] | None = None, **changes: Any) -> str:
    """The card of three accepted traces, in the present folder."""
    settings = FilterSettings(**SETTINGS | changes)
    prompts: dict[str, Prompt] = {p.id: p for p in (prompt(n) for n in range(1, 4))}
    examples = [example(trace, prompts[trace.prompt_id], SUPERCOT) for trace in TRACES]
    write_records(settings.prompts, prompts.values())
    write_records(settings.traces, TRACES)
    write_records(settings.output, examples)
    funnel = Funnel()
    funnel.dropped.update({"wrong": 1200, "finish_length": 7, "contaminated_ngram": 5})
    funnel.kept = 3
    return data_card(
        DataSet(
            settings=settings,
            prompts=prompts,
            calls=calls or IN_PROCESS,
            examples=examples,
            funnel=funnel,
            benchmarks={str(path): 2000 for path in settings.decontaminate},
            response_format=SUPERCOT,
        )
    )


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    with chdir(tmp_path):
        yield tmp_path


def front_matter(card: str) -> Any:
    _, head, _ = card.split("---\n", 2)
    return YAML(typ="safe", pure=True).load(head)


def test_the_front_matter_is_what_the_hub_reads(folder: Path) -> None:
    head = front_matter(card_of(language="en"))
    assert head["license"] == "other"
    assert head["language"] == ["en"]
    assert "synthetic" in head["tags"]
    assert head["size_categories"] == ["n<1K"]
    assert head["configs"] == [{"config_name": "default", "data_files": "accepted.jsonl"}]
    other = front_matter(card_of(SERVED))
    assert "language" not in other
    assert "synthetic" not in other["tags"]


def test_the_funnel_goes_from_read_to_kept_in_the_order_of_the_tests(folder: Path) -> None:
    card = card_of()
    assert "| read | | | 1,215 |\n| `finish_length` | cut off | 7 | 1,208 |\n| `wrong` |" in card
    assert "| 5 | 3 |\n| **kept** | | | **3** |" in card


def test_what_was_served_and_paid_is_told(folder: Path) -> None:
    card = card_of(SERVED)
    for words in (
        "`deepseek-flash-1124` 2",
        "2026-11-23 to 2026-11-24",
        '`{"model": "deepseek-flash", "effort": "high"}`',
        "| requests | 1,234 |",
        "output 54,321, of which reasoning 50,000",
        "12.345678, and 2 requests without an answer that may have been billed",
        "deepseek 2026-11-15",
        "| reasoning | 1 | 1 | 1 | 2 | 3 | 3 | 3 |",
    ):
        assert words in card
    assert "`odd\\|'name' <b>` 1" in card


def test_what_nobody_said_is_a_dash(folder: Path) -> None:
    card = card_of()
    for label in ("days", "requests", "tokens", "cost (USD)", "prices"):
        assert f"| {label} | – |" in card
    assert "may have been billed" not in card
    assert "without a language model | yes |" in card


def test_the_files_are_named_with_their_digests(folder: Path) -> None:
    card = card_of()
    for key in ("prompts", "traces", "output"):
        assert f"| `{SETTINGS[key]}` | `{sha256_of(Path(SETTINGS[key]))}` |" in card


def test_the_same_data_give_the_same_bytes_anywhere(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    here = card_of()
    with chdir(tmp_path_factory.mktemp("elsewhere")):
        assert card_of() == here
    assert str(folder) not in here


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Not compared with any evaluation set."),
        ({"decontaminate": ["data/e.jsonl"]}, "| `data/e.jsonl` | 2,000 |"),
        ({"decontaminate": ["data/e.jsonl"]}, "Runs of shared words were not looked for."),
        (
            {"decontaminate": ["data/e.jsonl"], "decontaminate_words": 8},
            "shares 8 words in a row with one: 5.",
        ),
        ({"scripts": ["Latin"]}, "at least 0.95 of the words in Latin script"),
        ({"max_repetition": 0.3}, "at most 0.3 of either may have occurred before"),
        ({"near_duplicate_prompts": 95.0}, "or one that is 95% similar"),
        ({"choose": "spread"}, "evenly from the shortest to the longest"),
    ],
)
def test_each_test_is_told_with_its_setting(folder: Path, changes: dict[str, Any], words: str) -> None:
    card = card_of(**changes)
    assert words in card
    assert not re.search(r"\n{4}|\{\{|\{%", card)


@given(st.text(max_size=40))
def test_no_text_leaves_its_cell(text: str) -> None:
    shown = cell(text)
    assert "\n" not in shown
    assert shown == "–" or shown.count("`") == 2
    assert not re.search(r"(?<!\\)\|", shown)


def test_quantiles_are_lengths_that_occur() -> None:
    assert set(quantiles([5, 1, 9])) == {1, 5, 9}
    assert quantiles([4]) == [4] * 7
    assert quantiles(list(range(101))) == [0, 10, 25, 50, 75, 90, 100]


def test_calls_of_other_traces_are_refused(folder: Path) -> None:
    traces, path = Path("traces.jsonl"), Path("calls.json")
    with pytest.raises(ChainForgeError, match=r"no file calls\.json"):
        read_calls(path, traces)
    write_records(traces, TRACES)
    calls = SERVED | {"traces_sha256": sha256_of(traces)}
    path.write_text(json.dumps(calls))
    assert read_calls(path, traces) == calls
    write_records(traces, TRACES[:2])
    with pytest.raises(ChainForgeError, match=r"is not of traces\.jsonl"):
        read_calls(path, traces)


@pytest.mark.parametrize(
    ("text", "problem"), [("{", "not JSON"), ("[]", "no 'teacher'"), ("{}", "no 'teacher'")]
)
def test_broken_calls_are_named(folder: Path, text: str, problem: str) -> None:
    Path("calls.json").write_text(text)
    with pytest.raises(ChainForgeError, match=problem):
        read_calls(Path("calls.json"), Path("traces.jsonl"))
