"""Laws of distillation: by a teacher's logits, and on what the student itself answers."""

import csv
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from fakes import MadeUp, policy, qwen2, tokenizer, weights
from sft_cases import EXAMPLES, STEP, backward, publish, run, settings_of, teacher_of, tokens_of

from chainforge.algorithms.kl import DIVERGENCES
from chainforge.config.distill import DistillSettings, OnPolicySettings
from chainforge.errors import ChainForgeError
from chainforge.learner.local_learner import LocalLearner
from chainforge.learner.teacher import shared_vocabulary
from chainforge.loops.own_answers import OwnAnswers
from chainforge.loops.sft import train
from chainforge.models.checkpoint import Policy
from chainforge.response import tag_format
from chainforge.rollout.engine import Engine
from chainforge.rollout.local_engine import LocalEngine
from chainforge.run.work import Work


def test_a_student_that_is_its_teacher_gets_no_gradient_from_the_teacher() -> None:
    toy = policy()
    settings = settings_of(logit_kd_weight=1.0, teacher="t")
    loss, gradient = backward(toy, policy(), tokens_of(toy), settings)
    assert loss == pytest.approx(0, abs=1e-6)
    assert float(gradient.abs().max()) < 1e-6


def test_the_weight_of_the_teacher_blends_the_two_losses() -> None:
    toy, teacher, found = policy(), policy(seed=1), []
    for weight in (0.0, 1.0, 0.25):
        settings = settings_of(logit_kd_weight=weight, teacher="t")
        found.append(backward(toy, teacher, tokens_of(toy), settings))
    assert found[2][0] == pytest.approx(0.75 * found[0][0] + 0.25 * found[1][0], rel=1e-5)
    torch.testing.assert_close(found[2][1], 0.75 * found[0][1] + 0.25 * found[1][1], atol=1e-6, rtol=1e-4)
    assert all(p.grad is None for p in teacher.model.parameters())


@pytest.mark.slow
def test_distilling_logits_teaches_the_teacher_s_distribution() -> None:
    toy, teacher = policy(), policy(seed=1)
    settings = settings_of(logit_kd_weight=1.0, teacher="t", learning_rate=1e-2, num_epochs=15.0)
    before = weights(teacher)
    publish(*run(toy, settings, teacher))
    rows = list(csv.DictReader(Path("plots/sft_cold_start.csv").read_text().splitlines()))
    assert float(rows[-1]["loss"]) < 0.6 * float(rows[0]["loss"])
    assert all(torch.equal(a, b) for a, b in zip(before, weights(teacher), strict=True))


def test_a_teacher_with_another_vocabulary_is_an_error() -> None:
    assert shared_vocabulary(policy(), policy(seed=1)) == 290
    other = Policy(policy().model, tokenizer(tag_format("r1").tags))
    with pytest.raises(
        ChainForgeError,
        match=r"do not share a vocabulary \(300 and 290 tokens, [1-9]\d* .*\n.*logit_kd_weight to 0",
    ):
        shared_vocabulary(policy(), other)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_logits_that_only_pad_one_of_two_vocabularies_are_cut(divergence: str) -> None:
    """A teacher with padding rows teaches the same as one without, whichever of the two has them."""
    toy, teacher = policy(), policy(seed=1)
    wide = Policy(qwen2(304), tokenizer())
    assert shared_vocabulary(toy, wide) == shared_vocabulary(wide, toy) == 290
    logp_MV = torch.randn(7, 290).log_softmax(-1)
    padded_MV = torch.cat([logp_MV + 0.3, torch.randn(7, 14)], 1).log_softmax(-1)
    found = teacher_of(teacher, divergence)
    torch.testing.assert_close(found._known(padded_MV), logp_MV)
    assert found._known(logp_MV) is logp_MV


def on_policy(share: float = 1.0, **changes: Any) -> DistillSettings:
    own = OnPolicySettings(share=share, max_new_tokens=12)
    return settings_of(on_policy=own, teacher="t", divergence="reverse-kl", **changes)


def distill(
    toy: Policy, teacher: Policy, settings: DistillSettings, engine: Engine, work: Work | None = None
) -> list[float]:
    """The loss of every step."""
    learning = teacher_of(teacher, settings.divergence)
    learner = LocalLearner(toy, settings, STEP, teacher=learning)
    assert settings.on_policy is not None
    own = OwnAnswers(engine, settings.on_policy, STEP)
    table, _ = train(learner, learning, EXAMPLES, settings, STEP, work or Work(), own)
    return [float(row["loss"]) for row in csv.DictReader(table.state_dict()["rows"].splitlines())]


def test_the_last_share_of_the_steps_is_on_what_the_student_answers() -> None:
    settings, engine = on_policy(0.4, num_epochs=4.0), MadeUp()
    distill(policy(), policy(seed=1), settings, engine)
    assert engine.versions == [7, 8, 9, 10]  # of ten, and each from the student as it is then
    prompts = {tuple(t.prompt) for t in tokens_of(policy())}
    assert {tuple(request.prompt_ids) for request in engine.asked} <= prompts
    seeds = [seed for request in engine.asked for seed in request.seeds]
    assert len(set(seeds)) == len(seeds) == len(engine.asked)


def test_the_loss_on_its_own_answers_is_the_divergence_alone() -> None:
    """A student that is its teacher has nothing to learn, whatever the examples say."""
    toy = policy()
    losses = distill(toy, policy(), on_policy(num_epochs=0.4), MadeUp())
    assert losses == [pytest.approx(0, abs=1e-5)]


@pytest.mark.slow
def test_answering_brings_a_student_to_its_teacher() -> None:
    teacher, toy = policy(), policy()
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in toy.model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    settings = on_policy(num_epochs=20.0, learning_rate=1e-2)
    losses = distill(toy, teacher, settings, LocalEngine(toy, STEP))
    assert fmean(losses[-5:]) < 0.6 * fmean(losses[:5])
