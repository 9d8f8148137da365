"""A small rollout of a GRPO step and a few updates on it, and what all of them will take."""

from contextlib import closing
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

from chainforge.config.grpo import GrpoSettings
from chainforge.learner.local_learner import LocalLearner
from chainforge.loops.grpo.rollout import equal_N
from chainforge.loops.grpo.rows import Row, make_rows
from chainforge.loops.grpo.update import add_logprobs, update
from chainforge.models.checkpoint import start_torch
from chainforge.preflight.cost import Point, fit, since_start, timed
from chainforge.preflight.estimate import Estimate, Finding
from chainforge.preflight.kept import add_kept
from chainforge.preflight.loaded import load_like
from chainforge.preflight.memory import bytes_per_cached_token, peak_memory, usable
from chainforge.preflight.sampling import Sample, judge_rates, rates_of, take_sample
from chainforge.preflight.stand_in import Inputs, prompts_of_step
from chainforge.preflight.texts import rate
from chainforge.rollout.complete import longest_sequence
from chainforge.rollout.open_engine import open_engine, samples_apart
from chainforge.run.step import Step
from chainforge.wiring import make_scorer

FIRST, SOME, TRIED = 1, 4, 3  # groups of the first update and of a small one; updates


def try_reinforced(
    step: Step, settings: GrpoSettings, inputs: Inputs, seconds: float, section: str
) -> Estimate:
    """Predict the step from a rollout on its own prompts. The model that is trained here is thrown away."""
    prompts, _, _ = prompts_of_step(settings, step.name, inputs)
    scorer = replace(
        make_scorer(inputs.plugins, settings.rewards, step, settings.reward_settings), log=_ignore
    )
    scorer.check(prompts)
    device = start_torch(step.settings, step.runtime)
    texts = ["\n".join(m["content"] for m in p.messages) for p in prompts]
    load = partial(load_like, settings.start_from, None, texts, inputs, step, device)
    start = since_start()
    (policy, name, stands_in), loading = timed(load)
    notes = list(dict.fromkeys(inputs.notes))
    estimate = Estimate(step.name, name, {"start": start}, notes=notes)
    if stands_in:
        estimate.notes.append(f"{settings.start_from} is not there: rates and lengths are those of {name}")
    compares = settings.kl_coeff > 0 and not settings.adapter
    apart = samples_apart(settings.engine, settings.adapter, step)
    longest = partial(longest_sequence, policy.tokenizer, prompts, settings, step)
    with closing(open_engine(settings.engine, policy, step, apart=apart, adapter=settings.adapter)) as engine:
        reference = (lambda: load()[0]) if compares else None
        learner, building = timed(
            lambda: LocalLearner(
                policy, settings, step, reference=reference, samples_apart=apart, longest=longest
            )
        )
        estimate.parts["model"] = loading.plus(building)
        updates = settings.num_rl_steps * settings.num_iterations * settings.mini_batches
        learner.begin(max(updates, TRIED))  # the schedule knows no step beyond
        sample = take_sample(
            engine, policy, prompts, settings.group_size, settings, step, scorer, seconds / 2
        )
        _add_updates(estimate, learner, sample, settings, step, all_learn=stands_in)
        rows = min(engine.rows, settings.prompts_per_step * settings.group_size)
    _add_rollouts(estimate, sample, settings, rows)
    tried = min(rows, len(sample.lengths))
    cached = bytes_per_cached_token(policy, step) * (settings.max_new_tokens + max(sample.lengths))
    deciding = next(iter(settings.rewards))
    equal = rate("equal rewards", equal_N(sample.groups, settings).tolist())
    estimate.rates = [*rates_of(sample, step, deciding), equal]
    if not stands_in:
        estimate.findings += judge_rates(estimate.rates, section)
        if equal.mean > 0.3:
            estimate.findings.append(
                Finding(
                    f"in {equal.mean:.0%} of the groups all rewards are equal: they teach nothing",
                    f"choose prompts of another difficulty, raise {section}.group_size, or set "
                    f"{section}.resample_rounds",
                    loss=equal.mean,
                )
            )
    add_kept(estimate, learner, step.runtime.save_every_s)
    estimate.memory = peak_memory(device) + (rows - tried) * cached
    estimate.usable = usable(device, step)
    scorer.close()
    return estimate


def _add_rollouts(estimate: Estimate, sample: Sample, settings: GrpoSettings, rows: int) -> None:
    completions = settings.prompts_per_step * settings.group_size
    equal = fmean(equal_N(sample.groups, settings).tolist())
    again = sum(equal**n for n in range(settings.resample_rounds + 1)) * settings.num_rl_steps
    estimate.parts["sampling"] = sample.decode(completions, rows).times(again)
    estimate.parts["rewards"] = sample.scoring.times(completions * again)
    estimate.tokens_per_s |= sample.speeds
    estimate.notes.append(
        f"{settings.num_rl_steps:,} RL steps of {completions:,} completions; {len(sample.lengths)} were "
        f"tried, {fmean(sample.lengths):.0f} tokens long on average"
    )


def _add_updates(
    estimate: Estimate,
    learner: LocalLearner,
    sample: Sample,
    settings: GrpoSettings,
    step: Step,
    *,
    all_learn: bool,
) -> None:
    """Updates on some groups and on all of them. Every row is made to learn; the share that does is counted
    in, but for a model that stands for a better one."""
    asked = settings.model_copy(update={"mini_batches": 1})
    parts = [sample.groups[:FIRST], sample.groups[:SOME], sample.groups]
    points: list[Point] = []
    beside: list[Point] = []
    learning = 1.0
    for groups in parts:
        rows, making = timed(partial(make_rows, learner.tokenizer, groups, settings, step))
        if len(groups) == len(sample.groups) and not all_learn:
            learning = fmean(row.learns for row in rows)
        _let_learn(rows)
        _, asking = timed(partial(add_logprobs, learner, rows, asked, step))
        _, cost = timed(partial(update, learner, rows, asked, step))
        size = sum(len(row.tokens) for row in rows)
        points.append(Point(1, size, cost))
        beside.append(Point(1, size, making.plus(asking)))
    line, other = fit(points[1:]), fit(beside[1:])
    first = points[0].cost.plus(beside[0].cost)
    warm_up = first.beyond(line.at(1, points[0].size).plus(other.at(1, points[0].size)))
    estimate.parts["warm-up"] = sample.warm_up.plus(warm_up)
    each = points[-1].size / len(sample.lengths)
    whole = settings.prompts_per_step * settings.group_size * each * learning
    often = settings.num_rl_steps * settings.num_iterations
    estimate.parts["updates"] = line.at(often * settings.mini_batches, often * whole)
    estimate.parts["log-probabilities"] = other.at(settings.num_rl_steps, settings.num_rl_steps * whole)
    estimate.tokens_per_s["trained"] = points[-1].size / max(points[-1].cost.wall, 1e-9)


def _let_learn(rows: list[Row]) -> None:
    for number, row in enumerate(rows):
        row.learns, row.masked = True, False
        row.advantage = row.advantage or (1.0 if number % 2 else -1.0)


def _ignore(_name: str, _value: Any) -> None:
    """A reward's log is for the step itself."""
