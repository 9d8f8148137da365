"""Rewards from elsewhere are registered as they are: TRL's, for a whole step, and verifiers', per sample."""

import asyncio
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import SUPERCOT, completion, prompt
from hypothesis import given
from hypothesis import strategies as st
from toys import MakeScorer

from chainforge.errors import ChainForgeError
from chainforge.reward_options import RewardOptions
from chainforge.scoring import Scorer, WeightedReward

HERE = Path(__file__).parent
TRL = (HERE / "published_trl.py").read_text(encoding="utf-8")
VERIFIERS = (HERE / "published_verifiers.py").read_text(encoding="utf-8")
PROMPTS = [
    prompt(1, "6*7=?", "42", solution=r"So \boxed{42}.", level="easy"),
    prompt(2, "Why?", "why not", solution="Because."),
]
COMPLETIONS = [
    [completion(PROMPTS[0], r"It is \boxed{42}"), completion(PROMPTS[0], "42")],
    [completion(PROMPTS[1], "why not why not"), completion(PROMPTS[1], "")],
]
WAYS = [{"isolation": "inline"}, {"isolation": "process"}]


def values(scorer: Scorer) -> list[float | None]:
    groups = scorer.score(PROMPTS, COMPLETIONS, global_step=1, max_steps=2)
    return [part for group in groups for score in group.scores for part in score.parts.values()]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(
    ("function", "conversational", "expected"),
    [
        ("accuracy_reward", True, [1.0, 0.0, None, None]),
        ("judge_reward", True, [1.0, 1.0, 1.0, 0.0]),
        ("RepetitionPenalty()", False, [0.0, None, 2 / 3 - 1, None]),
    ],
)
def test_a_reward_published_for_trl_is_registered_without_an_edit(
    make_scorer: MakeScorer, way: dict[str, str], function: str, conversational: bool, expected: list[float]
) -> None:
    logged: list[tuple[str, Any]] = []
    scorer = make_scorer(
        TRL, function, log=lambda *what: logged.append(what), conversational=conversational, **way
    )
    assert values(scorer) == expected
    assert logged == ([("judge/mean", 0.75)] if function == "judge_reward" else [])


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(
    ("function", "conversational", "expected"),
    [
        ("exact_answer", True, [0.0, 1.0, 0.0, 0.0]),
        ("effort", False, [3.0, 1.0, None, None]),
    ],
)
def test_a_reward_published_for_verifiers_is_registered_without_an_edit(
    make_scorer: MakeScorer, way: dict[str, str], function: str, conversational: bool, expected: list[float]
) -> None:
    scorer = make_scorer(VERIFIERS, function, per_sample=True, conversational=conversational, **way)
    assert values(scorer) == expected
    assert values(scorer) == expected  # `state` is fresh in each call


def scorer_of(*functions: Any, log: Any = None, **options: Any) -> Scorer:
    rewards = (
        WeightedReward(f"reward{n}", 1.0, function, "plugins/toy.py", RewardOptions(**options))
        for n, function in enumerate(functions)
    )
    return Scorer(tuple(rewards), SUPERCOT, 10.0, log or (lambda name, value: None))


def test_a_sample_gets_its_own_of_everything_that_is_offered() -> None:
    seen = []

    def reward(**offered: Any) -> bool:
        assert offered.pop("response_format") is SUPERCOT
        assert offered.pop("trainer_state").global_step == 1
        offered.pop("log_metric")("seen", len(seen))
        offered.pop("log_extra")
        seen.append(dict(offered, state=dict(offered["state"])))
        offered["state"]["mine"] = True
        return True

    logged: list[Any] = []
    assert values(scorer_of(reward, per_sample=True, log=lambda *what: logged.append(what))) == [1.0] * 4
    columns = {"solution": r"So \boxed{42}.", "level": "easy"}
    assert seen[1] == {
        **columns,
        "prompt": "6*7=?",
        "completion": "42",
        "answer": "42",
        "completion_ids": list(COMPLETIONS[0][1].token_ids),
        "info": columns,
        "state": {},
    }
    assert seen[2]["level"] is None  # a column of the other prompt only
    assert seen[2]["info"] == {"solution": "Because."}
    assert logged == [("seen", n) for n in range(4)]


def test_a_column_called_info_is_the_info() -> None:
    asked = prompt(1, "?", info={"rubric": "short"})
    scorer = scorer_of(lambda info: len(info["rubric"]), per_sample=True)
    assert scorer.score([asked], [[completion(asked, "a")]])[0].scores[0].total == 5.0


def test_what_a_reward_does_to_its_arguments_reaches_no_other() -> None:
    def vandal(prompts: Any, completions: Any, solution: Any) -> list[float]:
        prompts[0][0]["content"] = completions[0][0]["content"] = "gone"
        count = len(completions)
        del prompts[:], completions[:], solution[:]
        return [0.0] * count

    def witness(prompts: Any, completions: Any, solution: Any) -> list[float]:
        assert prompts[0] == [{"role": "user", "content": "6*7=?"}]
        assert completions[0][0]["content"] == r"It is \boxed{42}"
        return [1.0] * len(solution)

    assert values(scorer_of(vandal, witness, conversational=True)) == [0.0, 1.0] * 4


@pytest.mark.parametrize(
    "returned",
    [
        np.array([0.0, 0.5, 1.0, 0.25], dtype=np.float32),
        list(np.array([0.0, 0.5, 1.0, 0.25], dtype=np.float32)),
        torch.tensor([0.0, 0.5, 1.0, 0.25]),
        list(torch.tensor([0.0, 0.5, 1.0, 0.25])),
        (False, 0.5, True, 0.25),
    ],
    ids=["array", "numpy numbers", "tensor", "tensors", "bools"],
)
def test_numbers_of_other_libraries_are_numbers(returned: Any) -> None:
    assert values(scorer_of(lambda completions: returned)) == [0.0, 0.5, 1.0, 0.25]


@pytest.mark.slow
@given(turns=st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=2, max_size=2))
def test_the_order_in_which_async_rewards_finish_changes_nothing(turns: list[list[int]]) -> None:
    finished: list[tuple[int, str]] = []

    def made(number: int) -> Any:
        patience = {c.text: turns[number][i] for i, c in enumerate(c for group in COMPLETIONS for c in group)}

        async def reward(completion: str, log_metric: Any) -> float:
            for _ in range(patience[completion]):
                await asyncio.sleep(0)
            finished.append((number, completion))
            log_metric(f"reward{number}", len(finished))
            return float(len(completion))

        return reward

    with scorer_of(made(0), made(1), per_sample=True) as scorer:
        groups = scorer.score(PROMPTS, COMPLETIONS)
    for group in groups:
        for text, score in zip(group.completions, group.scores, strict=True):
            assert score.parts == {"reward0": len(text.text), "reward1": len(text.text)}
    assert len(finished) == 8


def test_async_rewards_and_the_samples_of_one_wait_for_each_other() -> None:
    arrived = []

    async def batch(completions: list[str]) -> list[float]:
        arrived.append("batch")
        while len(arrived) < 5:  # for ever, if the rewards took turns
            await asyncio.sleep(0)
        return [0.0] * len(completions)

    async def sample(completion: str) -> float:
        arrived.append(completion)
        while len(arrived) < 5:
            await asyncio.sleep(0)
        return 1.0

    rewards = (
        WeightedReward("batch", 1.0, batch, "toy"),
        WeightedReward("sample", 1.0, sample, "toy", RewardOptions(per_sample=True)),
    )
    with Scorer(rewards, SUPERCOT, 10.0) as scorer:
        assert values(scorer) == [0.0, 1.0] * 4


def test_a_client_that_lives_in_the_event_loop_can_be_kept_from_step_to_step() -> None:
    loops = set()

    async def reward(completions: list[str]) -> list[float]:
        loops.add(asyncio.get_running_loop())
        return [0.0] * len(completions)

    with scorer_of(reward) as scorer:
        assert values(scorer) == values(scorer)
        assert len(loops) == 1
        assert not next(iter(loops)).is_closed()
    assert next(iter(loops)).is_closed()


def test_the_first_sample_that_failed_is_the_error() -> None:
    async def reward(completion: str) -> float:
        await asyncio.sleep(0)
        if completion in ("42", "why not why not"):
            raise SystemExit(f"cannot read {completion}")
        return 0.0

    with scorer_of(reward, per_sample=True) as scorer, pytest.raises(ChainForgeError) as caught:
        values(scorer)
    assert caught.value.problem == "reward 'reward0' (plugins/toy.py) raised SystemExit: cannot read 42"


@pytest.mark.slow
def test_a_coroutine_that_never_gives_way_is_given_up_and_the_next_call_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chainforge.scoring.call.GRACE_S", 0.1)
    release, calls = threading.Event(), []

    async def reward(completions: list[str]) -> list[float]:
        calls.append(1)
        if len(calls) == 1:
            release.wait(60)
        return [1.0] * len(completions)

    with scorer_of(reward, timeout_s=0.2) as scorer:
        with pytest.raises(ChainForgeError, match=r"did not return within 0\.2 s for 4 .*\n.* its timeout_s"):
            values(scorer)
        assert values(scorer) == [1.0] * 4
        release.set()


def fails(completions: list[str]) -> list[float]:
    raise ValueError("offline")


async def fails_awaited(completions: list[str]) -> list[float]:
    raise ValueError("offline")


def hangs(completions: list[str]) -> list[float]:
    threading.Event().wait(60)
    return []


async def hangs_awaited(completions: list[str]) -> list[float]:
    await asyncio.sleep(60)
    return []


@pytest.mark.slow
@pytest.mark.parametrize("function", [fails, fails_awaited, hangs, hangs_awaited])
def test_a_failure_is_none_where_the_plugin_asks_for_it_said_once_and_counted(
    function: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    logged: list[tuple[str, Any]] = []

    def fine(completions: list[str]) -> list[float]:
        return [0.5] * len(completions)

    rewards = (
        WeightedReward("toy", 1.0, function, "toys 1.2", RewardOptions(on_error="none", timeout_s=0.2)),
        WeightedReward("fine", 2.0, fine, "toys 1.2"),
    )
    with Scorer(rewards, SUPERCOT, 10.0, lambda *what: logged.append(what)) as scorer:
        for _ in range(2):
            groups = scorer.score(PROMPTS, COMPLETIONS)
            assert [s.parts["toy"] for g in groups for s in g.scores] == [None] * 4
            assert [s.total for g in groups for s in g.scores] == [1.0] * 4
    assert logged == [("toy.failed_calls", 1), ("toy.failed_calls", 2)]
    said = capsys.readouterr().err
    assert said.startswith("reward 'toy' (toys 1.2) ")
    assert said.count("toy.failed_calls") == said.count("reward 'toy'") == 1


@pytest.mark.slow
def test_where_only_a_failed_reward_applies_nothing_does() -> None:
    scores = scorer_of(fails, on_error="none").score(PROMPTS, COMPLETIONS)[0].scores
    assert all(math.isnan(score.total) for score in scores)


@pytest.mark.slow
@pytest.mark.parametrize("returned", [[0.0], [math.nan] * 4, "none", None])
def test_a_wrong_answer_is_no_failure_to_answer_and_always_an_error(returned: Any) -> None:
    with pytest.raises(ChainForgeError, match="returned"):
        values(scorer_of(lambda completions: returned, on_error="none"))
