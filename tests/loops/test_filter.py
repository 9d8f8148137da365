"""Filtering traces: every one is kept, or dropped for exactly one reason."""

from typing import Any

import pytest
from fakes import SUPERCOT, prompt
from hypothesis import given
from hypothesis import strategies as st

from chainforge.config.filter import FilterSettings
from chainforge.loops.filter import select_traces
from chainforge.records import Trace
from chainforge.scoring import Scorer, WeightedReward

PROMPTS = {p.id: p for p in (prompt(1), prompt(2), prompt(3, answer=None))}
GOOD = {"prompt_id": "p1", "reasoning": "6*7=42", "content": "42", "finish": "stop", "origin": "toy"}


def correct(completions: list[str], answer: list[str | None]) -> list[float | None]:
    return [
        None if a is None else float(f"<summary>{a}</summary>" in text)
        for text, a in zip(completions, answer, strict=True)
    ]


SCORER = Scorer((WeightedReward("correct", 1.0, correct, "toy"),), SUPERCOT, 10.0)


def settings_of(**changes: Any) -> FilterSettings:
    paths = {"output": "out", "prompts": "in", "traces": "in"}
    return FilterSettings(**paths | {"max_characters": 100, "keep_per_prompt": 2} | changes)


def trace(**changes: Any) -> Trace:
    return Trace(**GOOD | changes)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("unknown_prompt", {"prompt_id": "p9"}),
        ("finish_length", {"finish": "length"}),
        ("finish_error", {"finish": "error"}),
        ("empty", {"reasoning": " \n"}),
        ("empty", {"content": ""}),
        ("contains_tag", {"reasoning": "so <summary> it is"}),
        ("contains_tag", {"content": "</reasoning_process>42"}),
        ("too_long", {"reasoning": "x" * 99}),
        ("wrong", {"content": "41"}),
    ],
)
def test_each_reason_to_drop_a_trace_is_reached_and_counted(reason: str, changes: dict[str, Any]) -> None:
    examples, counts = select_traces([trace(**changes), trace()], PROMPTS, SCORER, settings_of())
    assert [e.response for e in examples] == [SUPERCOT.render("6*7=42", "42")]
    assert counts == {"read": 2, "kept": 1, f"dropped/{reason}": 1}


def test_more_than_wanted_of_one_prompt_are_dropped_first_come_first_served() -> None:
    traces = [trace(reasoning=f"way {n}") for n in range(5)] + [trace(prompt_id="p2")]
    examples, counts = select_traces(traces, PROMPTS, SCORER, settings_of())
    assert [e.response for e in examples] == [
        SUPERCOT.render(text, "42") for text in ("way 0", "way 1", "6*7=42")
    ]
    assert counts == {"read": 6, "kept": 3, "dropped/over_quota": 3}


def test_a_trace_that_the_reward_does_not_apply_to_is_kept() -> None:
    examples, _ = select_traces([trace(prompt_id="p3", content="anything")], PROMPTS, SCORER, settings_of())
    assert [(e.prompt_id, e.messages, e.origin) for e in examples] == [("p3", PROMPTS["p3"].messages, "toy")]


def test_a_lower_bar_lets_wrong_answers_through() -> None:
    examples, counts = select_traces([trace(content="41")], PROMPTS, SCORER, settings_of(min_reward=0.0))
    assert len(examples) == counts["kept"] == 1


def test_the_longest_allowed_trace_is_kept() -> None:
    edge = trace(reasoning="x" * 98)
    assert select_traces([edge], PROMPTS, SCORER, settings_of())[1] == {"read": 1, "kept": 1}


def test_nothing_whole_is_nothing_to_score() -> None:
    assert select_traces([], PROMPTS, SCORER, settings_of()) == ([], {"read": 0, "kept": 0})
    assert select_traces([trace(content="")], PROMPTS, SCORER, settings_of())[1]["kept"] == 0


any_trace = st.builds(
    Trace,
    st.sampled_from(["p1", "p2", "p3", "p9"]),
    st.sampled_from(["", "r", "<summary>", "x" * 200]),
    st.sampled_from(["42", "41", " ", "</summary>"]),
    st.sampled_from(["stop", "length", "error"]),
    st.just("toy"),
)


@given(traces=st.lists(any_trace, max_size=20), keep=st.integers(1, 3))
def test_kept_and_dropped_add_up_to_all(traces: list[Trace], keep: int) -> None:
    examples, counts = select_traces(traces, PROMPTS, SCORER, settings_of(keep_per_prompt=keep))
    dropped = sum(count for name, count in counts.items() if name.startswith("dropped/"))
    assert counts["read"] == len(traces) == counts["kept"] + dropped
    assert counts["kept"] == len(examples)
    assert all(SUPERCOT.parse(e.response) for e in examples)
    assert all(sum(e.prompt_id == name for e in examples) <= keep for name in PROMPTS)
