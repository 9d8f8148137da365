"""GRPO: raise the reward of what the policy samples. Steps grpo_reasoning and grpo_final."""

from contextlib import closing
from functools import partial

from chainforge.config.grpo import GrpoSettings
from chainforge.jsonl import read_records
from chainforge.learner.local_learner import LocalLearner
from chainforge.loops.grpo.prompt_mix import PromptMix
from chainforge.loops.grpo.train import train
from chainforge.loops.grpo.watch import Watch
from chainforge.models.checkpoint import load_policy, start_torch
from chainforge.project.stage import Run, stage, stage_main
from chainforge.records import Prompt
from chainforge.rollout.complete import longest_sequence
from chainforge.rollout.open_engine import open_engine, samples_apart
from chainforge.run.work import open_work
from chainforge.wiring import make_scorer


@stage(GrpoSettings)
def main(run: Run[GrpoSettings]) -> None:
    step, settings, plugins = run.step, run.settings, run.plugins
    scorer = make_scorer(plugins, settings.rewards, step, settings.reward_settings)
    extra = read_records(settings.extra_prompts, Prompt) if settings.extra_prompts else []
    own = read_records(settings.prompts, Prompt)
    scorer.check([*own, *extra])
    prompts = PromptMix(own, extra, settings.extra_share, step.seed("prompts"))
    watch = None
    if settings.watch:
        grader = make_scorer(plugins, {settings.watch.reward: 1.0}, step, settings.reward_settings)
        seen = read_records(settings.watch.prompts, Prompt, settings.watch.max_prompts)
        watch = Watch(settings.watch, grader, scorer, seen, settings, step)
    device = start_torch(step.settings, step.runtime)
    policy = load_policy(settings.start_from, device)
    compares = settings.kl_coeff > 0 and not settings.adapter
    reference = partial(load_policy, settings.start_from, device) if compares else None
    apart = samples_apart(settings.engine, settings.adapter, step)
    longest = partial(longest_sequence, policy.tokenizer, [*own, *extra], settings, step)
    begin = partial(open_engine, settings.engine, max_len=longest, apart=apart, adapter=settings.adapter)
    with (
        open_work(run.inputs, step.runtime) as work,
        step.output_folder(settings.output) as folder,
        closing(begin(policy, step)) as engine,
    ):
        learner = LocalLearner(
            policy, settings, step, reference=reference, samples_apart=apart, longest=longest
        )
        table, summary = train(learner, engine, scorer, prompts, settings, step, work, watch)
        learner.save(folder)
        step.finish(summary, table, **({"watch": watch.wrong} if watch else {}))


if __name__ == "__main__":
    stage_main(main, several_processes=True)
