"""A small rollout of a step that samples or evaluates, and what all of it will take."""

from contextlib import closing
from dataclasses import replace
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any

from chainforge.config.evaluate import EvaluateSettings
from chainforge.config.sample import SampleSettings
from chainforge.models.checkpoint import start_torch
from chainforge.preflight.cost import since_start, timed
from chainforge.preflight.estimate import Estimate, Finding
from chainforge.preflight.loaded import load_like
from chainforge.preflight.memory import bytes_per_cached_token, peak_memory, usable
from chainforge.preflight.sampling import judge_rates, rates_of, take_sample
from chainforge.preflight.stand_in import Inputs, prompts_of_step
from chainforge.preflight.texts import rate
from chainforge.rollout.complete import batch_size
from chainforge.rollout.open_engine import open_engine
from chainforge.run.step import Step
from chainforge.wiring import make_scorer

BYTES_PER_TOKEN = 12  # of a completion, as text with its ids in JSON


def try_sampled(
    step: Step, settings: SampleSettings | EvaluateSettings, inputs: Inputs, seconds: float, section: str
) -> Estimate:
    """Predict the step from a rollout on its own prompts."""
    prompts, count, _ = prompts_of_step(settings, step.name, inputs)
    rewards = (
        settings.rewards if isinstance(settings, SampleSettings) else dict.fromkeys(settings.rewards, 1.0)
    )
    made: Any = make_scorer(inputs.plugins, rewards, step, settings.reward_settings)
    scorer = replace(made, log=lambda _name, _value: None)
    scorer.check(prompts)
    device = start_torch(step.settings, step.runtime)
    checkpoint, new = None, None
    if isinstance(settings, SampleSettings):
        checkpoint, deciding = settings.start_from, next(iter(settings.rewards))
    else:
        name, new, deciding = step.name.partition("@")[2], settings.base_model, settings.reward
        checkpoint = None if new else Path("checkpoints") / name.rpartition("-")[0]
    texts = ["\n".join(m["content"] for m in p.messages) for p in prompts]
    start = since_start()
    (policy, model, stands_in), load = timed(lambda: load_like(checkpoint, new, texts, inputs, step, device))
    estimate = Estimate(
        step.name, model, {"start": start, "model": load}, notes=list(dict.fromkeys(inputs.notes))
    )
    if stands_in:
        estimate.notes.append(f"{checkpoint} is not there: rates and lengths are those of {model}")
    with closing(open_engine(settings.engine, policy, step, frozen=True)) as engine:
        sample = take_sample(engine, policy, prompts, settings.samples, settings, step, scorer, seconds)
        rows = min(engine.rows, count * settings.samples)
        batches = ceil(count / batch_size(engine, settings.samples))
    greedy = count if isinstance(settings, EvaluateSettings) and settings.greedy else 0
    together = sample.decode(count * settings.samples / batches, rows).times(batches)
    estimate.parts["warm-up"] = sample.warm_up
    estimate.parts["sampling"] = together.plus(sample.decode(greedy, rows) if greedy else together.times(0))
    estimate.parts["rewards"] = sample.scoring.times(count * settings.samples + greedy)
    estimate.tokens_per_s |= sample.speeds
    tried = min(rows, len(sample.lengths))
    cached = bytes_per_cached_token(policy, step) * (settings.max_new_tokens + max(sample.lengths))
    estimate.memory, estimate.usable = peak_memory(device) + (rows - tried) * cached, usable(device, step)
    estimate.saves = BYTES_PER_TOKEN * fmean(sample.lengths) * (count * settings.samples + greedy)
    estimate.rates = rates_of(sample, step, deciding)
    if isinstance(settings, SampleSettings):
        least = settings.min_reward
        accepted = [float(any(score.total >= least for score in group.scores)) for group in sample.groups]
        estimate.rates.append(rate("prompts with an accepted answer", accepted))
        if not stands_in and not any(accepted):
            problem = f"none of {len(sample.lengths)} completions has a reward of {least:g}"
            estimate.findings.append(Finding(problem, f"lower {section}.min_reward", loss=1.0))
    if not stands_in:
        estimate.findings += judge_rates(estimate.rates, section)
    estimate.notes.append(
        f"{count * settings.samples + greedy:,} completions; {len(sample.lengths)} were tried, "
        f"{fmean(sample.lengths):.0f} tokens long on average"
    )
    scorer.close()
    return estimate
