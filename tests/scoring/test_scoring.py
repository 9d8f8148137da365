"""Rewards written for TRL work unchanged, and one that misbehaves is one clear error."""

import asyncio
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from fakes import SUPERCOT, completion, prompt
from hypothesis import given
from hypothesis import strategies as st

from chainforge.errors import ChainForgeError
from chainforge.reward_options import RewardOptions
from chainforge.scoring import Scorer, WeightedReward

PROMPTS = [prompt(1, "one?", "1", level="easy"), prompt(2, "two?", "2", level="hard", hint="even")]
COMPLETIONS = [
    [
        completion(PROMPTS[0], "1", [5, 6]),
        completion(PROMPTS[0], "one", [7]),
    ],
    [
        completion(PROMPTS[1], "22", [8, 9, 3]),
        completion(PROMPTS[1], "", []),
    ],
]


def scorer_of(
    *functions: Any, timeout_s: float = 10.0, weights: Sequence[float] = (), **options: Any
) -> Scorer:
    return Scorer(
        tuple(
            WeightedReward(
                f"reward{n}",
                weights[n] if weights else 1.0,
                function,
                "plugins/toy.py",
                RewardOptions(**options),
            )
            for n, function in enumerate(functions)
        ),
        SUPERCOT,
        timeout_s,
    )


def totals(function: Any, **options: Any) -> list[float]:
    groups = scorer_of(function, **options).score(PROMPTS, COMPLETIONS)
    return [score.total for group in groups for score in group.scores]


def lengths_with_kwargs(prompts: list[str], completions: list[str], **kwargs: Any) -> list[float]:
    """As in TRL's documentation, keyword arguments and all."""
    assert prompts == ["one?", "one?", "two?", "two?"]
    assert kwargs["answer"] == ["1", "1", "2", "2"]
    assert kwargs["level"] == ["easy", "easy", "hard", "hard"]
    assert kwargs["hint"] == [None, None, "even", "even"]
    assert kwargs["completion_ids"] == [[5, 6], [7], [8, 9, 3], []]
    assert kwargs["trainer_state"].global_step == 0
    assert kwargs["response_format"] is SUPERCOT
    kwargs["log_metric"]("seen", 4.0)
    kwargs["log_extra"]("texts", completions)
    return [float(len(text)) for text in completions]


def lengths_without_kwargs(completions: list[str]) -> list[float]:
    return [float(len(text)) for text in completions]


def lengths_of_ids_and_answers(completion_ids: list[list[int]], *, answer: list[str]) -> list[float]:
    assert answer == ["1", "1", "2", "2"]
    return [float(len(ids)) for ids in completion_ids]


def lengths_of_messages(completions: list[list[dict[str, str]]], prompts: Any, **_: Any) -> list[float]:
    """As in open-r1: a completion is a list with one assistant message."""
    assert prompts[0] == [{"role": "user", "content": "one?"}]
    assert all(c[0]["role"] == "assistant" for c in completions)
    return [float(len(c[0]["content"])) for c in completions]


async def lengths_awaited(completions: list[str], **kwargs: Any) -> list[float]:
    await asyncio.sleep(0)
    return [float(len(text)) for text in completions]


class Callables:
    """A reward may be an object, as TRL's reward classes are."""

    def __call__(self, completions: list[str], **kwargs: Any) -> list[float]:
        return [float(len(text)) for text in completions]


@pytest.mark.parametrize(
    ("function", "conversational"),
    [
        (lengths_with_kwargs, False),
        (lengths_without_kwargs, False),
        (lengths_of_messages, True),
        (lengths_awaited, False),
        (Callables(), False),
        (lambda completions, **kwargs: [len(text) for text in completions], False),
        (lambda completions, **kwargs: tuple(len(text) for text in completions), False),
    ],
)
def test_a_reward_written_for_trl_works_unchanged(function: Any, conversational: bool) -> None:
    assert totals(function, conversational=conversational) == [1.0, 3.0, 2.0, 0.0]


def test_only_the_arguments_that_a_reward_takes_are_passed() -> None:
    assert totals(lengths_of_ids_and_answers) == [2.0, 1.0, 3.0, 0.0]


def test_a_reward_learns_the_step_and_can_log() -> None:
    logged: list[tuple[str, Any]] = []

    def reward(completions: list[str], trainer_state: Any, log_metric: Any, **_: Any) -> list[float]:
        log_metric("step", trainer_state.global_step / trainer_state.max_steps)
        return [0.0] * len(completions)

    scorer = replace(scorer_of(reward), log=lambda name, value: logged.append((name, value)))
    scorer.score(PROMPTS, COMPLETIONS, global_step=3, max_steps=4)
    assert logged == [("step", 0.75)]


def test_groups_keep_the_order_of_prompts_and_completions_and_the_reward_is_called_once() -> None:
    calls = []

    def reward(completions: list[str]) -> list[float]:
        calls.append(list(completions))
        return [float(n) for n in range(len(completions))]

    groups = scorer_of(reward).score(PROMPTS, COMPLETIONS)
    assert calls == [["1", "one", "22", ""]]
    assert [group.prompt for group in groups] == PROMPTS
    assert [list(group.completions) for group in groups] == COMPLETIONS
    assert [[score.total for score in group.scores] for group in groups] == [[0.0, 1.0], [2.0, 3.0]]


parts = st.lists(st.one_of(st.none(), st.floats(-1, 1)), min_size=4, max_size=4)


@pytest.mark.slow
@given(a=parts, b=parts, weight=st.floats(-3, 3))
def test_none_stays_out_of_the_weighted_sum(
    a: list[float | None], b: list[float | None], weight: float
) -> None:
    scorer = scorer_of(lambda completions: a, lambda completions: b, weights=[1.0, weight])
    scores = [score for group in scorer.score(PROMPTS, COMPLETIONS) for score in group.scores]
    for x, y, score in zip(a, b, scores, strict=True):
        assert score.parts == {"reward0": x, "reward1": y}
        if x is None and y is None:
            assert math.isnan(score.total)  # not zero: nothing applies
        else:
            assert score.total == pytest.approx((x or 0.0) + weight * (y or 0.0))


def raises(**_: Any) -> list[float]:
    raise ValueError("no digits here")


def needs_a_column(completions: list[str], difficulty: list[int]) -> list[float]:
    return [0.0] * len(completions)


def hangs(**_: Any) -> list[float]:
    end = time.monotonic() + 600
    while time.monotonic() < end:
        pass
    return []


def hangs_and_swallows(**_: Any) -> list[float]:
    while True:
        try:
            time.sleep(600)
        except Exception:
            continue


async def hangs_awaited(**_: Any) -> list[float]:
    await asyncio.sleep(600)
    return []


async def raises_awaited(**_: Any) -> list[float]:
    await asyncio.sleep(0)
    raise RuntimeError("offline")


MISBEHAVIOUR = {
    "raises": (raises, r"raised ValueError: no digits here"),
    "raises when awaited": (raises_awaited, r"raised RuntimeError: offline"),
    "needs a column that no prompt has": (
        needs_a_column,
        r"needs the column 'difficulty', which the prompts do not have",
    ),
    "hangs": (hangs, r"did not return within 0\.2 s for 4 completions"),
    "hangs and catches every Exception": (hangs_and_swallows, r"did not return within 0\.2 s"),
    "hangs when awaited": (hangs_awaited, r"did not return within 0\.2 s"),
    "returns NaN": (lambda **_: [0.0, math.nan, 0.0, 0.0], "returned nan for completion 1"),
    "returns infinity": (lambda **_: [0.0, 0.0, 0.0, -math.inf], "returned -inf for completion 3"),
    "returns too few": (lambda **_: [0.0], "returned 1 values for 4 completions"),
    "returns too many": (lambda **_: [0.0] * 5, "returned 5 values for 4 completions"),
    "returns a string": (lambda **_: "1111", "returned str, not a list"),
    "returns a number": (lambda **_: 1.0, "returned float, not a list"),
    "returns nothing": (lambda **_: None, "returned NoneType, not a list"),
    "returns strings": (lambda **_: ["1.0"] * 4, r"returned '1\.0' for completion 0"),
    "returns lists": (lambda **_: [[1.0]] * 4, r"returned \[1\.0\] for completion 0"),
}


@pytest.mark.dear
@pytest.mark.parametrize("how", MISBEHAVIOUR)
def test_a_reward_that_misbehaves_is_one_error_that_names_it_and_its_source(how: str) -> None:
    function, complaint = MISBEHAVIOUR[how]
    started = time.monotonic()
    with pytest.raises(ChainForgeError, match=complaint) as caught:
        totals(function, timeout_s=0.2)
    assert time.monotonic() - started < 300, "it was waited for"
    assert caught.value.problem.startswith("reward 'reward0' (plugins/toy.py) ")
    assert len(str(caught.value).splitlines()) == 2
    assert caught.value.fix


def test_the_clock_stops_when_a_reward_returns() -> None:
    def quick(completions: list[str]) -> list[float]:
        return [0.0] * len(completions)

    assert totals(quick, timeout_s=0.05) == [0.0] * 4
    time.sleep(0.1)  # a timer left running would ring here


def test_a_reward_may_run_outside_the_main_thread() -> None:
    async def in_a_thread() -> list[float]:
        return await asyncio.to_thread(totals, lengths_without_kwargs)

    assert asyncio.run(in_a_thread()) == [1.0, 3.0, 2.0, 0.0]


def test_a_prompt_without_completions_is_a_group_without_scores() -> None:
    groups = scorer_of(lengths_without_kwargs).score(PROMPTS, [[], COMPLETIONS[1]])
    assert [[score.total for score in group.scores] for group in groups] == [[], [2.0, 0.0]]


def test_of_several_processes_the_first_calls_the_rewards_and_the_others_get_what_they_said() -> None:
    said: list[str] = []

    async def of_length(completions: list[str], **_: Any) -> list[float | None]:
        return [float(len(text)) or None for text in completions]

    def write(value: Any) -> Any:
        said.append(json.dumps(value))
        return value

    def never(**_: Any) -> list[float]:
        raise AssertionError("it was called")

    first = replace(scorer_of(of_length), hand_out=write)
    other = replace(scorer_of(never), is_first=False, hand_out=lambda _: json.loads(said.pop(0)))
    started = first.begin(PROMPTS, COMPLETIONS)
    also = other.begin(PROMPTS, COMPLETIONS)
    assert started.waits
    assert also.waits, "or one process would sample on while another waits"
    assert repr(started.result()) == repr(also.result())  # nan is not equal to itself
    assert said == []
