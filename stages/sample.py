"""Rejection sampling: accepted completions of a checkpoint, as examples to train on."""

from chainforge.config.sample import SampleSettings
from chainforge.errors import ChainForgeError
from chainforge.graph import settings_of
from chainforge.jsonl import read_records, write_records
from chainforge.loops.rejection import accept
from chainforge.models.checkpoint import load_policy, start_torch
from chainforge.plugins import load_plugins
from chainforge.records import Prompt
from chainforge.rollout.complete import complete
from chainforge.run.step import open_step, stage_main
from chainforge.wiring import make_scorer


def main(name: str) -> None:
    step, settings = open_step(name), settings_of(SampleSettings, name)
    scorer = make_scorer(load_plugins(), settings.rewards, step)
    policy = load_policy(settings.start_from, start_torch(step.settings, step.runtime))
    prompts = read_records(settings.prompts, Prompt)[: settings.max_prompts]
    if settings.extra_prompts:
        prompts += read_records(settings.extra_prompts, Prompt)[: settings.extra_max_prompts]
    completions = complete(
        policy,
        prompts,
        settings.samples,
        settings,
        seed=lambda prompt_id, index: step.seed(prompt_id, index),
        step=step,
        show_progress=True,
    )
    examples, counts = accept(scorer.score(prompts, completions), settings)
    if not examples:
        raise ChainForgeError(
            f"no completion was accepted: {counts}", "lower min_reward, or train longer before"
        )
    write_records(settings.output, examples)
    step.finish(counts)


if __name__ == "__main__":
    stage_main(main)
