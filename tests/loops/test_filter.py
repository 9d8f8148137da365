"""Filtering traces: every one is kept, or dropped for exactly one reason."""

from collections import Counter
from typing import Any

import pytest
from fakes import SUPERCOT, prompt
from hypothesis import given
from hypothesis import strategies as st

from chainforge.config.filter import FilterSettings
from chainforge.filtering.contamination import Benchmarks
from chainforge.filtering.funnel import REASONS, sort_reasons
from chainforge.loops.filter import select_traces
from chainforge.records import Example, Trace
from chainforge.reward_options import RewardOptions
from chainforge.scoring import Scorer, WeightedReward

LONG = "Anna has nine red apples and gives four of them to Ben, how many are left?"
ALIKE = LONG.replace("red", "ripe")
TWINS = (prompt(4, LONG), prompt(5, LONG.upper()), prompt(6, ALIKE))
PROMPTS = {p.id: p for p in (prompt(1), prompt(2), prompt(3, answer=None), *TWINS)}
GOOD = {"prompt_id": "p1", "reasoning": "6*7=42", "content": "42", "finish": "stop", "origin": "toy"}
HELD_OUT = [
    prompt(91, "What is  1 TIMES 7?"),
    prompt(92, "Ben has four apples, gives four of them to Ben, how many?"),
]


def correct(completions: list[str], answer: list[str | None]) -> list[float | None]:
    return [
        None if a is None else float(f"<summary>{a}</summary>" in text)
        for text, a in zip(completions, answer, strict=True)
    ]


SCORER = Scorer((WeightedReward("correct", 1.0, correct, "toy"),), SUPERCOT, 10.0)


def failing(completions: list[str]) -> list[float | None]:
    raise ValueError("no time")


def test_a_trace_that_the_reward_failed_on_is_not_taken_for_right(capsys: pytest.CaptureFixture[str]) -> None:
    options = RewardOptions(on_error="none")
    with Scorer((WeightedReward("correct", 1.0, failing, "toy", options),), SUPERCOT, 10.0) as scorer:
        examples, funnel = select_traces([trace()], PROMPTS, scorer, settings_of(), Benchmarks.of([()], None))
    assert (examples, funnel.counts["dropped/ungraded"]) == ([], 1)
    assert "no time" in capsys.readouterr().err


def settings_of(**changes: Any) -> FilterSettings:
    paths = dict.fromkeys(("output", "card", "prompts", "traces", "calls"), "file")
    return FilterSettings(**paths | {"max_characters": 100, "keep_per_prompt": 2} | changes)


def trace(**changes: Any) -> Trace:
    return Trace(**GOOD | changes)


def select(
    traces: list[Trace], settings: FilterSettings, *, words: int | None = None, held_out: Any = ()
) -> tuple[list[Example], dict[str, int]]:
    benchmarks = Benchmarks.of([held_out], words)
    examples, funnel = select_traces(traces, PROMPTS, SCORER, settings, benchmarks)
    return examples, funnel.counts


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("unknown_prompt", {"prompt_id": "p9"}),
        ("finish_length", {"finish": "length"}),
        ("finish_error", {"finish": "error"}),
        ("finish_content_filter", {"finish": "content_filter"}),
        ("no_reasoning", {"reasoning": " \n"}),
        ("no_answer", {"content": ""}),
        ("contains_tag", {"reasoning": "so <summary> it is"}),
        ("contains_tag", {"content": "</reasoning_process>42"}),
        ("wrong", {"content": "41"}),
        ("language", {"prompt_id": "p3", "reasoning": "so we get 所以答案是 42"}),
        ("language", {"prompt_id": "p3", "content": "答案是42"}),
        ("too_short", {"reasoning": "6"}),
        ("too_long", {"reasoning": "x" * 199}),
        ("repetition", {"reasoning": "again and " * 12}),
        ("duplicate", {}),
        ("duplicate", {"reasoning": " 6*7=42\n"}),
        ("near_duplicate", {"reasoning": "6*7 =42"}),
    ],
)
def test_each_reason_to_drop_a_trace_is_reached_and_counted(reason: str, changes: dict[str, Any]) -> None:
    settings = settings_of(
        scripts=["Latin"],
        min_characters=4,
        max_characters=200,
        max_repetition=0.3,
        near_duplicate_responses=90.0,
    )
    examples, counts = select([trace(), trace(**changes)], settings)
    assert [e.response for e in examples] == [SUPERCOT.render("6*7=42", "42")]
    assert counts == {"read": 2, "kept": 1, f"dropped/{reason}": 1}
    assert reason in REASONS


@pytest.mark.parametrize(
    ("prompt_id", "words", "reason"),
    [
        ("p1", None, "contaminated_exact"),
        ("p4", 7, "contaminated_ngram"),
        ("p4", 8, None),
        ("p4", None, None),
        ("p2", 3, None),
    ],
)
def test_what_the_evaluation_asks_is_not_trained_on(
    prompt_id: str, words: int | None, reason: str | None
) -> None:
    _, counts = select([trace(prompt_id=prompt_id)], settings_of(), words=words, held_out=HELD_OUT)
    assert counts == {"read": 1, "kept": 0, f"dropped/{reason}": 1} if reason else {"read": 1, "kept": 1}


@pytest.mark.parametrize(
    ("near", "expected"),
    [
        (None, {"kept": 3, "dropped/duplicate_prompt": 2}),
        (90.0, {"kept": 2, "dropped/duplicate_prompt": 2, "dropped/near_duplicate_prompt": 1}),
        (100.0, {"kept": 3, "dropped/duplicate_prompt": 2}),
    ],
)
def test_of_prompts_that_are_alike_the_first_is_kept_with_all_its_traces(
    near: float | None, expected: dict[str, int]
) -> None:
    traces = [trace(prompt_id=name, reasoning=way) for way in ("so", "thus") for name in ("p4", "p5")]
    settings = settings_of(near_duplicate_prompts=near)
    examples, counts = select([*traces, trace(prompt_id="p6")], settings)
    assert counts == {"read": 5} | expected
    assert [e.prompt_id for e in examples][:2] == ["p4", "p4"]


def test_a_trace_that_is_dropped_stands_in_nobodys_way() -> None:
    traces = [
        trace(prompt_id="p4", content="41"),
        trace(prompt_id="p5"),
        trace(prompt_id="p5", finish="length"),
    ]
    examples, counts = select(traces, settings_of())
    assert [e.prompt_id for e in examples] == ["p5"]
    assert counts == {"read": 3, "kept": 1, "dropped/wrong": 1, "dropped/finish_length": 1}
    assert list(counts) == ["read", "kept", "dropped/finish_length", "dropped/wrong"], (
        "in the order of the tests"
    )


@pytest.mark.parametrize(
    ("choose", "kept"), [("first", "aaaa b"), ("shortest", "b cc"), ("spread", "b aaaa")]
)
def test_which_of_too_many_are_kept(choose: str, kept: str) -> None:
    traces = [trace(reasoning=text) for text in ("aaaa", "b", "ccc", "cc")]
    examples, _ = select(traces, settings_of(choose=choose))
    texts = [SUPERCOT.parse(e.response).reasoning for e in examples]  # type: ignore[union-attr]
    assert sorted(texts) == sorted(kept.split())
    assert texts == [t.reasoning for t in traces if t.reasoning in texts], "in their old order"


def test_more_than_wanted_of_one_prompt_are_dropped_first_come_first_served() -> None:
    traces = [trace(reasoning=f"way {n}") for n in range(5)] + [trace(prompt_id="p2")]
    examples, counts = select(traces, settings_of())
    assert [e.response for e in examples] == [
        SUPERCOT.render(text, "42") for text in ("way 0", "way 1", "6*7=42")
    ]
    assert counts == {"read": 6, "kept": 3, "dropped/over_quota": 3}


def test_a_trace_that_the_reward_does_not_apply_to_is_kept() -> None:
    examples, _ = select([trace(prompt_id="p3", content="anything")], settings_of())
    assert [(e.prompt_id, e.messages, e.origin) for e in examples] == [("p3", PROMPTS["p3"].messages, "toy")]


def test_a_lower_bar_lets_wrong_answers_through() -> None:
    examples, counts = select([trace(content="41")], settings_of(min_reward=0.0))
    assert len(examples) == counts["kept"] == 1


def test_the_longest_allowed_trace_is_kept() -> None:
    edge = trace(reasoning="x" * 98)
    assert select([edge], settings_of())[1] == {"read": 1, "kept": 1}


def test_many_traces_are_scored_in_batches_of_their_own_time_limit() -> None:
    calls: list[int] = []

    def counted(completions: list[str], answer: list[str | None]) -> list[float | None]:
        calls.append(len(completions))
        return correct(completions, answer)

    scorer = Scorer((WeightedReward("correct", 1.0, counted, "toy"),), SUPERCOT, 10.0)
    traces = [trace(reasoning=f"way {n}", content=("42", "41")[n % 2]) for n in range(600)]
    _, funnel = select_traces(traces, PROMPTS, scorer, settings_of(), Benchmarks())
    assert sum(calls) == 600
    assert max(calls) <= 256
    assert funnel.counts == {"read": 600, "kept": 2, "dropped/wrong": 300, "dropped/over_quota": 298}


def test_nothing_whole_is_nothing_to_score() -> None:
    assert select([], settings_of()) == ([], {"read": 0, "kept": 0})
    assert select([trace(content="")], settings_of())[1]["kept"] == 0


any_trace = st.builds(
    Trace,
    st.sampled_from([*PROMPTS, "p9"]),
    st.sampled_from(["", "r", "r.", "another way", "so 所以", "<summary>", "x" * 200, "loop " * 30]),
    st.sampled_from(["42", "41", " ", "</summary>"]),
    st.sampled_from(["stop", "stop", "stop", "length", "content_filter", "error"]),
    st.just("toy"),
)
any_settings = st.builds(
    settings_of,
    keep_per_prompt=st.integers(1, 3),
    choose=st.sampled_from(["first", "shortest", "spread"]),
    scripts=st.sampled_from([[], ["Latin"], ["Han"]]),
    min_characters=st.integers(0, 8),
    max_repetition=st.sampled_from([0.3, 1.0]),
    near_duplicate_prompts=st.none() | st.floats(50, 100),
    near_duplicate_responses=st.none() | st.floats(50, 100),
)


@pytest.mark.slow
@given(st.lists(any_trace, max_size=20), any_settings, st.none() | st.integers(1, 9))
def test_kept_and_dropped_add_up_to_all(
    traces: list[Trace], settings: FilterSettings, words: int | None
) -> None:
    examples, counts = select(traces, settings, words=words, held_out=HELD_OUT)
    dropped = [name.removeprefix("dropped/") for name in counts if name.startswith("dropped/")]
    assert (
        counts["read"] == len(traces) == counts["kept"] + sum(counts[f"dropped/{name}"] for name in dropped)
    )
    assert dropped == sort_reasons(dropped)
    assert set(dropped) <= set(REASONS)
    assert counts["kept"] == len(examples)
    assert all(SUPERCOT.parse(e.response) for e in examples)
    assert max(Counter(e.prompt_id for e in examples).values(), default=0) <= settings.keep_per_prompt
    assert (examples, counts) == select(traces, settings, words=words, held_out=HELD_OUT), "by chance"
    in_order = iter((t.prompt_id, SUPERCOT.render(t.reasoning, t.content)) for t in traces if safe(t))
    assert all((e.prompt_id, e.response) in in_order for e in examples)


def safe(of: Trace) -> bool:
    return not any(tag in of.reasoning + of.content for tag in SUPERCOT.tags)
