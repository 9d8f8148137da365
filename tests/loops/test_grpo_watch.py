"""Rewards beside a grader that trains nothing: what is seen of it, and when it is said."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from fakes import SUPERCOT, MadeUp, learner_of, make_step, policy, prompt, weights
from grpo_cases import mix, settings_of

from chainforge.config.grpo import GrpoSettings
from chainforge.config.watch import WatchSettings
from chainforge.loops.grpo.train import train
from chainforge.loops.grpo.watch import SHOWN, SURE, Watch
from chainforge.rollout.local_engine import LocalEngine
from chainforge.run.work import Work
from chainforge.scoring import Scorer, WeightedReward

STEP = make_step("grpo_reasoning")
PROMPTS = [prompt(n) for n in range(1, 41)]
WATCH = WatchSettings(prompts=Path("held_out.jsonl"), reward="grader", every=2)


def scorer(name: str, value: Callable[[int, int], float | None]) -> Scorer:
    """`value` of the RL step and the place of a prompt."""

    def reward(completions: Sequence[str], trainer_state: object, **_: object) -> list[float | None]:
        return [value(trainer_state.global_step, n) for n in range(len(completions))]  # type: ignore[attr-defined]

    return Scorer((WeightedReward(name, 1.0, reward, "toy"),), SUPERCOT, 10.0)


def by_place(step: int, place: int) -> float:
    return float(place % 3)


def watch(
    rewards: Callable[[int, int], float | None], right: Callable[[int, int], float], settings: GrpoSettings
) -> Watch:
    return Watch(WATCH, scorer("grader", right), scorer("correct", rewards), PROMPTS, settings, STEP)


def looks(rewards: Callable[[int, int], float | None], right: Callable[[int, int], float]) -> str:
    """What is said after ten RL steps."""
    settings = settings_of("dapo", num_rl_steps=10)
    seen, engine, tokenizer = watch(rewards, right, settings), MadeUp(), policy().tokenizer
    for number in range(1, 11):
        seen.look(engine, tokenizer, number)
        again = watch(rewards, right, settings)
        again.load_state_dict(seen.state_dict())  # a save in between changes nothing
        seen = again
    said = Path("logs/grpo_reasoning.watch.txt")
    return said.read_text() if said.exists() else ""


def test_a_reward_that_rises_while_the_grader_falls_is_said() -> None:
    text = looks(lambda step, _: step / 10, lambda step, n: float(n >= 3 * step))
    assert "the reward and grader 'grader' part. From RL step 1 to 6, on 40 held-out prompts" in text
    assert "the reward went from 0.100 to 0.600" in text
    assert "from 92.5% to 55.0% (-37.5%, 95% interval -5" in text
    assert "logs/grpo_reasoning.watch.jsonl" in text


@pytest.mark.parametrize(
    ("rewards", "right"),
    [
        pytest.param(lambda step, _: step / 10, lambda step, n: float(n < 3 * step), id="both rise"),
        pytest.param(lambda step, _: -step / 10, lambda step, n: float(n >= 3 * step), id="both fall"),
        pytest.param(lambda step, _: step / 10, lambda step, n: float(n >= 20 + step // 4), id="by chance"),
    ],
)
def test_nothing_is_said_where_they_do_not_part(
    rewards: Callable[[int, int], float | None], right: Callable[[int, int], float]
) -> None:
    assert looks(rewards, right) == ""


def test_what_is_rewarded_and_wrong_can_be_read() -> None:
    looks(lambda step, n: float(n), lambda step, n: float(n % 2))
    rows = [json.loads(line) for line in Path("logs/grpo_reasoning.watch.jsonl").read_text().splitlines()]
    assert [row["reward"] for row in rows] == [float(n) for n in range(38, -1, -2)]  # the best rewarded first
    assert {"prompt_id", "prompt", "answer", "completion", "rewards"} <= rows[0].keys()


def test_the_list_of_the_last_look_goes_into_the_metrics_also_after_a_stop() -> None:
    settings = settings_of("dapo", num_rl_steps=2)
    seen = watch(lambda step, n: float(n), lambda step, n: float(n % 2), settings)
    seen.look(MadeUp(), policy().tokenizer, 1)
    again = watch(by_place, by_place, settings)
    again.load_state_dict(json.loads(json.dumps(seen.state_dict())))
    STEP.finish({"reward": 0.5}, watch=again.wrong)
    written = json.loads(Path("metrics/grpo_reasoning.json").read_text())
    logged = Path("logs/grpo_reasoning.watch.jsonl").read_text().splitlines()
    assert written == {"reward": 0.5, "watch": [json.loads(line) for line in logged]}
    assert len(logged) == SHOWN


def test_a_completion_that_no_reward_applies_to_counts_as_nothing() -> None:
    looks(lambda step, n: None if n == 4 else float(n), lambda step, n: float(n >= 6))
    rows = [json.loads(line) for line in Path("logs/grpo_reasoning.watch.jsonl").read_text().splitlines()]
    assert [row["reward"] for row in rows] == [5.0, 3.0, 2.0, 1.0, 0.0, 0.0]


@pytest.mark.slow
def test_watching_changes_no_weight_and_fills_its_columns() -> None:
    tables, found = [], []
    for watched in (False, True):
        settings = settings_of("dapo", num_rl_steps=5, max_new_tokens=6)
        toy = policy()
        seen = watch(by_place, lambda step, n: float(n % 2), settings) if watched else None
        learner, engine = learner_of(toy, settings, STEP), LocalEngine(toy, STEP)
        rewarded = scorer("correct", by_place)
        table, _ = train(learner, engine, rewarded, mix(PROMPTS), settings, STEP, Work(), seen)
        tables.append(table.state_dict()["rows"].splitlines())
        found.append(weights(toy))
    assert all((a == b).all() for a, b in zip(*found, strict=True))
    plain, with_watch = tables
    assert with_watch[0] == plain[0] + ",watch/reward,watch/grader"
    shown = [line.removeprefix(plain[n]) for n, line in enumerate(with_watch)][1:]
    assert [bool(cells.strip(",")) for cells in shown] == [True, True, False, True, True]


def test_the_bound_is_stricter_than_usual() -> None:
    """Each look is compared with the best of all before, which is best by chance too."""
    assert SURE <= 0.001
