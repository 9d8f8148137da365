"""What the tests of supervised steps share: settings, examples, an optimizer step that changes nothing."""

from typing import Any
from unittest.mock import patch

import torch
from fakes import SUPERCOT, Recording, make_step

from chainforge.algorithms.kl import DIVERGENCES
from chainforge.config.distill import DistillSettings
from chainforge.learner.local_learner import LocalLearner
from chainforge.learner.teacher import Teacher
from chainforge.loops.sft import tokenize, train, update
from chainforge.models.batch import Tokens
from chainforge.models.checkpoint import Policy
from chainforge.models.policy_model import PolicyModel
from chainforge.records import Example
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
