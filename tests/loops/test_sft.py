"""Laws of supervised fine-tuning: loss on the response only, and nothing that depends on the machine."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import pytest
import torch
from fakes import SUPERCOT, MadeUp, Recording, learner_of, make_step, policy, qwen2, tokenizer, weights
from torch.nn.functional import cross_entropy

from chainforge.algorithms.kl import DIVERGENCES
from chainforge.config.distill import DistillSettings, OnPolicySettings
from chainforge.errors import ChainForgeError
from chainforge.learner.local_learner import LocalLearner
from chainforge.learner.optimizer import NotFinite
from chainforge.learner.teacher import Teacher, shared_vocabulary
from chainforge.loops.own_answers import OwnAnswers
from chainforge.loops.sft import evaluation_loss, tokenize, train, update
from chainforge.loops.sft_batches import batches, split
from chainforge.models.batch import Tokens
from chainforge.models.chat import encode_prompt, encode_response
from chainforge.models.checkpoint import Policy
from chainforge.models.policy_model import PolicyModel
from chainforge.records import Example
from chainforge.response import tag_format
from chainforge.rollout.engine import Engine
from chainforge.rollout.local_engine import LocalEngine
from chainforge.run.metrics import StepTable
from chainforge.run.step import Step
from chainforge.run.work import Work

STEP = make_step("sft_cold_start")


def settings_of(**changes: Any) -> DistillSettings:
    small = {
        "batch_size": 4,
        "num_epochs": 2.0,
        "max_tokens": 200,
        "learning_rate": 1e-3,
        "eval_fraction": 0.2,
    }
    return DistillSettings(**{"output": "out", "examples": "in", "start_from": "model"} | small | changes)


def example(number: int) -> Example:
    question = {"role": "user", "content": f"{number}*7=?"}
    response = SUPERCOT.render("x" * number, str(number * 7))
    return Example(f"p{number}", ({"role": "system", "content": "s"}, question), response, "toy")  # type: ignore[arg-type]


def publish(table: StepTable, summary: dict[str, float | None]) -> None:
    """What the stage script does once the checkpoint is saved."""
    STEP.finish(summary, table)


EXAMPLES = [example(n) for n in range(12)]


def tokens_of(toy: Policy, examples: list[Example] = EXAMPLES) -> list[Tokens]:
    return tokenize(toy.tokenizer, examples, settings_of(), "")[0]


def teacher_of(teaching: Policy, divergence: str = "forward-kl", weight: float = 1.0) -> Teacher:
    return Teacher(PolicyModel(teaching.model), 290, DIVERGENCES[divergence], weight)


def backward(
    toy: Policy, teacher: Policy | None, batch: list[Tokens], settings: DistillSettings, step: Step = STEP
) -> tuple[float, torch.Tensor]:
    """(loss, gradient) of an optimizer step that changes no weight."""
    learning = teacher_of(teacher) if teacher else None
    with patch("chainforge.learner.local_learner.ScheduledOptimizer", Recording):
        learner = LocalLearner(toy, settings, step, teacher=learning)
        learner.begin(1)
    return update(learner, learning, batch, teacher_weight=settings.logit_kd_weight).loss, Recording.gradient


def run(
    toy: Policy, settings: DistillSettings, teacher: Policy | None = None
) -> tuple[StepTable, dict[str, float | None]]:
    learning = teacher_of(teacher, weight=settings.logit_kd_weight) if teacher else None
    learner = LocalLearner(toy, settings, STEP, teacher=learning)
    return train(learner, learning, EXAMPLES, settings, STEP, Work())


def test_the_loss_is_the_mean_cross_entropy_of_response_tokens_and_of_no_other() -> None:
    toy, batch = policy(), EXAMPLES[:5]
    loss, found = backward(toy, None, tokens_of(toy, batch), settings_of())
    total, count = torch.zeros(()), 0
    for e in batch:
        prompt, response = encode_prompt(tokenizer(), e.messages), encode_response(tokenizer(), e.response)
        logits_SV = toy.model(torch.tensor([[*prompt, *response]])).logits[0]
        total = total + cross_entropy(
            logits_SV[len(prompt) - 1 : -1], torch.tensor(response), reduction="sum"
        )
        count += len(response)
    wanted = torch.autograd.grad(total / count, list(toy.model.parameters()))
    assert loss == pytest.approx(total.item() / count, rel=1e-5)
    torch.testing.assert_close(found, torch.cat([g.flatten() for g in wanted]), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_loss_and_gradient_do_not_depend_on_the_size_of_a_micro_batch(weight: float) -> None:
    toy, teacher = policy(), policy(seed=1)
    settings = settings_of(logit_kd_weight=weight, teacher="t")
    found = []
    for most in (10**6, 1, 150, 300):
        step = make_step("sft", micro_batch_tokens=most)
        found.append(backward(toy, teacher, tokens_of(toy), settings, step))
    for loss, grad in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        torch.testing.assert_close(grad, found[0][1], atol=1e-6, rtol=1e-4)


def test_training_twice_gives_the_same_bytes() -> None:
    found = []
    for name in ("a", "b"):
        toy = policy()
        settings = settings_of(muon_learning_rate=1e-3)
        learner = learner_of(toy, settings, STEP)
        publish(*train(learner, None, EXAMPLES, settings, STEP, Work()))
        learner.save(Path(name))
        found.append([path.read_bytes() for path in sorted(Path(name).iterdir())])
        found[-1] += [
            Path(f).read_bytes() for f in ("plots/sft_cold_start.csv", "metrics/sft_cold_start.json")
        ]
    assert found[0] == found[1]


def test_training_lowers_the_loss_and_leaves_its_figures() -> None:
    toy = policy()
    settings = settings_of(num_epochs=20.0, learning_rate=1e-2, eval_every=7, batch_size=5)
    publish(*run(toy, settings))
    rows = list(csv.DictReader(Path("plots/sft_cold_start.csv").read_text().splitlines()))
    summary = json.loads(Path("metrics/sft_cold_start.json").read_text())
    assert summary["examples"] + summary["held_out"] == len(EXAMPLES)
    assert summary["held_out"] == 2
    assert summary["steps"] == len(rows) == 40
    assert summary["parameters"] == sum(p.numel() for p in toy.model.parameters())
    assert float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])
    assert [row["step"] for row in rows if row["eval_loss"]] == ["7", "14", "21", "28", "35", "40"]
    assert summary["eval_loss"] == pytest.approx(float(rows[-1]["eval_loss"]), rel=1e-4)


def test_the_evaluation_loss_is_the_training_loss_without_a_gradient() -> None:
    toy = policy()
    batch = tokens_of(toy)
    learner = learner_of(toy, settings_of(), make_step(micro_batch_tokens=100))
    loss = evaluation_loss(learner, batch)
    assert all(p.grad is None for p in toy.model.parameters())
    assert loss == pytest.approx(backward(toy, None, batch, settings_of())[0], rel=1e-5)
    assert evaluation_loss(learner, []) is None


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


def test_examples_that_are_too_long_are_left_out_and_counted() -> None:
    toy = policy()
    lengths = [len(t) for t in tokens_of(toy)]
    limit = sorted(lengths)[6]
    fitting, too_long = tokenize(toy.tokenizer, EXAMPLES, settings_of(max_tokens=limit), "")
    assert [len(t) for t in fitting] == [n for n in lengths if n <= limit]
    assert too_long == sum(n > limit for n in lengths) > 0
    publish(*run(toy, settings_of(max_tokens=limit)))
    assert json.loads(Path("metrics/sft_cold_start.json").read_text())["too_long"] == too_long
    with pytest.raises(
        ChainForgeError, match=r"none of 12 examples fits into 5 tokens\n  -> raise sft\.max_tokens"
    ):
        tokenize(toy.tokenizer, EXAMPLES, settings_of(max_tokens=5), "")


def test_a_prefilled_tag_belongs_to_the_prompt_and_gets_no_loss() -> None:
    form = tag_format("r1-prefilled")
    toy = Policy(policy().model, tokenizer(form.tags))
    e = replace(EXAMPLES[3], response=form.render("xxx", "21"))
    (tokens,), _ = tokenize(toy.tokenizer, [e], settings_of(), form.prefill)
    assert toy.tokenizer.decode(list(tokens.prompt)).endswith("<|im_start|>assistant\n<think>")
    assert toy.tokenizer.decode(list(tokens.completion)) == "xxx</think><answer>21</answer><|im_end|>"


def test_held_out_examples_are_never_trained_on_and_the_split_is_stable() -> None:
    tokens = tokens_of(policy())
    training, held_out = split(tokens, settings_of(), STEP)
    assert sorted(map(id, [*training, *held_out])) == sorted(map(id, tokens))
    assert split(tokens, settings_of(), STEP) == (training, held_out)
    assert split(tokens, settings_of(), make_step("sft_refine"))[1] != held_out
    assert split(tokens, settings_of(eval_fraction=0.0), STEP)[1] == []
    assert len(split(tokens[:1], settings_of(eval_fraction=0.9), STEP)[0]) == 1  # something is left to train


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_every_example_comes_once_per_pass(batch_size: int) -> None:
    tokens = tokens_of(policy())
    per_pass = -(-len(tokens) // batch_size)
    found = list(batches(tokens, batch_size, 3 * per_pass, STEP))
    passes = [found[i : i + per_pass] for i in range(0, len(found), per_pass)]
    for one in passes:
        assert sorted(id(t) for batch in one for t in batch) == sorted(map(id, tokens))
        assert all(len(batch) <= batch_size for batch in one)
    assert list(batches(tokens, batch_size, 3 * per_pass, STEP)) == found
    if batch_size == 1:
        assert passes[0] != passes[1]


def test_a_loss_that_is_not_a_number_stops() -> None:
    toy = policy()
    with torch.no_grad():
        toy.model.get_output_embeddings().weight[0, 0] = torch.nan
    with pytest.raises(NotFinite, match="the loss is nan\n  -> lower the learning rate"):
        run(toy, settings_of())
    assert not Path("metrics").exists()


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


def test_answering_brings_a_student_to_its_teacher() -> None:
    teacher, toy = policy(), policy()
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in toy.model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    settings = on_policy(num_epochs=20.0, learning_rate=1e-2)
    losses = distill(toy, teacher, settings, LocalEngine(toy, STEP))
    assert fmean(losses[-5:]) < 0.6 * fmean(losses[:5])
