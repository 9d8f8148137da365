"""What the tests of GRPO share: settings, groups, and training on completions that are made up."""

from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import torch
from fakes import (
    SUPERCOT,
    MadeUp,
    Recording,
    completion,
    group,
    learner_of,
    make_step,
    policy,
    prompt,
    scorer_of,
)

from chainforge.config.grpo import GrpoSettings
from chainforge.learner.learner import Learner
from chainforge.loops.grpo.prompt_mix import PromptMix
from chainforge.loops.grpo.rollout import Rollout
from chainforge.loops.grpo.rows import Row
from chainforge.loops.grpo.train import train
from chainforge.loops.grpo.update import update
from chainforge.models.checkpoint import Policy
from chainforge.records import Group, Prompt
from chainforge.run.step import Step
from chainforge.run.work import Work
from chainforge.scoring import Scorer, WeightedReward

PROMPTS = [prompt(n) for n in range(1, 9)]


STEP = make_step()


def settings_of(loss_type: str = "grpo", **changes: Any) -> GrpoSettings:
    needed = {"clip_ratio_high": 1.5} if loss_type == "cispo" else {}
    small = {"group_size": 4, "prompts_per_step": 2, "num_rl_steps": 3, "max_new_tokens": 16, "kl_coeff": 0.0}
    paths = {"output": "out", "start_from": "in", "prompts": "prompts", "rewards": {"correct": 1.0}}
    return GrpoSettings(**paths | small | needed | {"loss_type": loss_type} | changes)


def random_groups(
    seed: int = 0, finish: Callable[[int], str] = lambda n: "stop", reward: Any = None
) -> list[Group]:
    """Three groups of four completions of random tokens and lengths, with random rewards."""
    generator = torch.Generator().manual_seed(seed)
    groups = []
    for number in range(3):
        p = prompt(number, "x" * 7 * number)
        lengths = torch.randint(1, 17, (4,), generator=generator).tolist()
        answers = [
            completion(
                p, token_ids=torch.randint(3, 290, (n,), generator=generator).tolist(), finish=finish(i)
            )
            for i, n in enumerate(lengths)
        ]
        rewards = torch.rand(4, generator=generator).tolist() if reward is None else [reward] * 4
        groups.append(group(p, answers, rewards))
    return groups


def gradient_of(
    toy: Policy, rows: Sequence[Row], settings: GrpoSettings, step: Step = STEP
) -> tuple[torch.Tensor, dict[str, float]]:
    learner = learner_of(toy, settings, step)
    with patch("chainforge.learner.local_learner.ScheduledOptimizer", Recording):
        learner.begin(1)
    metrics = update(learner, rows, settings, step)
    return Recording.gradient, metrics


def logprobs_of(
    toy: Policy, rows: Sequence[Row], settings: GrpoSettings, step: Step = STEP
) -> list[list[float]]:
    return learner_of(toy, settings, step).logprobs([row.tokens for row in rows], settings.temperature)


def started(toy: Policy, settings: GrpoSettings, step: Step = STEP) -> Learner:
    """A learner that can take steps."""
    learner = learner_of(toy, settings, step)
    learner.begin(settings.num_rl_steps * settings.num_iterations * settings.mini_batches)
    return learner


def mix(
    prompts: Sequence[Prompt], extra: Sequence[Prompt] = (), share: float = 0.5, seed: int = 3
) -> PromptMix:
    return PromptMix(prompts, extra, share, seed)


by_token, equal = scorer_of(lambda ids: float(ids[0] % 3)), scorer_of(lambda ids: 1.0)


def train_on(
    toy: Policy,
    settings: GrpoSettings,
    reference: Policy | None = None,
    *,
    scorer: Scorer = by_token,
    step: Step = STEP,
) -> MadeUp:
    """Train on completions that are made up."""
    engine = MadeUp()
    train(learner_of(toy, settings, step, reference), engine, scorer, mix(PROMPTS), settings, step, Work())
    return engine


def made_up_groups(scorer: Scorer, settings: GrpoSettings) -> list[Group]:
    return Rollout(MadeUp(), scorer, policy().tokenizer, mix(PROMPTS), settings, STEP).sample(PROMPTS, 0, 0)


def scored(*parts: dict[str, float | None]) -> list[Group]:
    """One group whose rewards have these parts, weighted as `Scorer` does."""
    p, scorer = (
        prompt(),
        Scorer(tuple(WeightedReward(name, 1.0, len, "toy") for name in parts[0]), SUPERCOT, 1),
    )
    return [Group(p, (completion(p, token_ids=[5]),) * len(parts), tuple(map(scorer.weigh, parts)))]
