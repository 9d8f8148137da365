"""Laws of the GRPO loop: what may change the weights, and what may not."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import (
    Beside,
    completion,
    group,
    learner_of,
    make_step,
    policy,
    scorer_of,
    weights,
)
from grpo_cases import (
    PROMPTS,
    STEP,
    by_token,
    equal,
    gradient_of,
    logprobs_of,
    made_up_groups,
    mix,
    random_groups,
    settings_of,
    train_on,
)

from chainforge.algorithms.losses import LOSSES
from chainforge.config.grpo import GrpoSettings
from chainforge.loops.grpo.rows import make_rows
from chainforge.loops.grpo.train import train
from chainforge.loops.grpo.update import add_logprobs
from chainforge.models.checkpoint import Policy
from chainforge.records import Group, Prompt
from chainforge.rollout.local_engine import LocalEngine
from chainforge.run.work import Work
from chainforge.scoring import Scorer


def figures() -> list[dict[str, str]]:
    return list(csv.DictReader(Path("plots/grpo_reasoning.csv").read_text().splitlines()))


def test_weights_after_training_do_not_depend_on_the_size_of_a_micro_batch() -> None:
    found = []
    for tokens in (10**6, 64):
        toy = policy()
        train_on(toy, settings_of(), step=make_step(micro_batch_tokens=tokens))
        found.append(weights(toy))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_the_engine_gets_the_weights_of_each_rollout() -> None:
    assert train_on(policy(), settings_of()).versions == [1, 2, 3]


def test_with_a_lag_each_rollout_is_that_of_the_policy_before_the_last_update() -> None:
    toy = policy()
    settings = settings_of(max_lag=1, engine={"kind": "vllm"}, learning_rate=1e-2)
    engine, learner = Beside(toy, STEP), learner_of(toy, settings)
    seen, learn = engine.events, learner.step
    learner.step = lambda *given, **named: seen.append("learn") or learn(*given, **named)
    train(learner, engine, by_token, mix(PROMPTS), settings, STEP, Work())
    assert seen == [
        *("update 1", "begin"),
        *("update 2", "begin", "learn"),
        *("update 3", "begin", "learn"),
        "learn",
    ]


@pytest.mark.parametrize("wrong", [{}, {"engine": {"kind": "vllm"}, "resample_rounds": 1}])
def test_a_lag_that_would_change_what_a_rollout_is_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_lag"):
        settings_of(max_lag=1, **wrong)


@pytest.mark.parametrize("loss_type", sorted(LOSSES))
def test_equal_rewards_leave_the_weights_untouched(loss_type: str) -> None:
    toy = policy()
    before = weights(toy)
    train_on(toy, settings_of(loss_type, weight_decay=0.5), scorer=equal)
    assert all(torch.equal(a, b) for a, b in zip(weights(toy), before, strict=True))


@pytest.mark.slow
def test_equal_rewards_with_a_kl_pull_the_policy_to_its_reference() -> None:
    toy, reference = policy(seed=0, sharpness=0.3), policy(seed=0)
    settings = settings_of(kl_coeff=1.0, num_rl_steps=30, learning_rate=1e-2)
    before, kl_before = weights(reference), kl_between(toy, reference, settings)
    train_on(toy, settings, reference, scorer=equal)
    assert kl_between(toy, reference, settings) < 0.6 * kl_before
    assert all(torch.equal(a, b) for a, b in zip(weights(reference), before, strict=True))


def kl_between(toy: Policy, reference: Policy, settings: GrpoSettings) -> float:
    rows = make_rows(toy.tokenizer, made_up_groups(equal, settings), settings, STEP)
    add_logprobs(learner_of(toy, settings, STEP, reference), rows, settings, STEP)
    return gradient_of(toy, rows, settings)[1]["kl"]


def test_groups_without_spread_can_be_left_out_of_the_kl_too() -> None:
    toy, reference = policy(), policy(seed=1)
    settings = settings_of(kl_coeff=1.0, drop_equal_groups=True)
    before = weights(toy)
    train_on(toy, settings, reference, scorer=equal)
    assert all(torch.equal(a, b) for a, b in zip(weights(toy), before, strict=True))
    one, two, three = random_groups()
    mixed = [one, group(two.prompt, two.completions, [0.5] * 4), three]
    assert [row.learns for row in make_rows(toy.tokenizer, mixed, settings, STEP)] == [True] * 4 + [
        False
    ] * 4 + [True] * 4
    settings = settings_of(kl_coeff=1.0)
    assert all(row.learns for row in make_rows(toy.tokenizer, mixed, settings, STEP))


def test_a_reference_that_is_synchronised_ends_as_the_policy() -> None:
    toy, reference = policy(), policy()
    settings = settings_of(kl_coeff=0.1, ref_sync_steps=3, learning_rate=1e-3)
    train_on(toy, settings, reference)
    assert not all(torch.equal(a, b) for a, b in zip(weights(toy), weights(policy()), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(weights(toy), weights(reference), strict=True))


def bandit(token: int) -> Scorer:
    """Rewards whether the first token is the one."""
    return scorer_of(lambda ids: float(ids[0] == token))


def chance(toy: Policy, token: int) -> float:
    """How likely the token is at the start of a response, on average over the prompts."""
    rows = [
        make_rows(
            toy.tokenizer, [group(p, [completion(p, token_ids=[token])] * 2, [0.0, 0.0])], settings_of(), STEP
        )[0]
        for p in PROMPTS[:4]
    ]
    return sum(math.exp(logp[0]) for logp in logprobs_of(toy, rows, settings_of())) / len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", sorted(LOSSES))
def test_training_raises_the_probability_of_what_is_rewarded(loss_type: str) -> None:
    toy = policy(sharpness=0.4)
    token = max(range(3, 290), key=lambda t: chance(toy, t) if t % 40 == 0 else 0.0)
    before = chance(toy, token)
    assert before < 0.2
    settings = settings_of(
        loss_type,
        max_new_tokens=2,
        group_size=32,
        prompts_per_step=4,
        num_rl_steps=12,
        learning_rate=1e-2,
        num_iterations=2,
    )
    learner, engine = learner_of(toy, settings), LocalEngine(toy, STEP)
    train(learner, engine, bandit(token), mix(PROMPTS[:4]), settings, STEP, Work())
    assert chance(toy, token) > max(2 * before, 0.3)


@pytest.mark.slow
def test_training_twice_gives_the_same_bytes_and_one_row_of_figures_per_step() -> None:
    found = []
    for _ in range(2):
        toy, settings = policy(), settings_of(max_new_tokens=6, learning_rate=1e-3)
        learner, engine = learner_of(toy, settings), LocalEngine(toy, STEP)
        table, summary = train(learner, engine, HalfRight(), mix(PROMPTS), settings, STEP, Work())  # type: ignore[arg-type]
        STEP.finish(summary, table)
        files = [
            Path(name).read_bytes() for name in ("plots/grpo_reasoning.csv", "metrics/grpo_reasoning.json")
        ]
        found.append((weights(toy), files))
    assert all(torch.equal(a, b) for a, b in zip(found[0][0], found[1][0], strict=True))
    assert found[0][1] == found[1][1]
    rows = figures()
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert all(float(row["reward"]) == 0.5 for row in rows)
    assert float(rows[0]["sampling/sampling_logp_difference/mean"]) < 1e-4  # the sampler's agree with ours
    assert "kl" in rows[0]
    assert rows[0]["kl"] == ""  # never computed
    assert json.loads(Path("metrics/grpo_reasoning.json").read_text())["reward"] == 0.5


class HalfRight:
    """A scorer by which every other completion is right."""

    rewards = by_token.rewards

    def score(self, chosen: Sequence[Prompt], answers: Any, **_: int) -> list[Group]:
        return [
            group(p, each, [1.0, 0.0] * (len(each) // 2)) for p, each in zip(chosen, answers, strict=True)
        ]
