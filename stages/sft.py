"""Supervised fine-tuning: the cold start, the refinement, and every student."""

from collections.abc import Sequence

import torch

from chainforge.config.sft import SftSettings
from chainforge.jsonl import read_records
from chainforge.learner.fully_sharded import splits_weights
from chainforge.learner.local_learner import LocalLearner
from chainforge.learner.teacher import load_teacher
from chainforge.loops.own_answers import answering_engine
from chainforge.loops.sft import train
from chainforge.models.checkpoint import Policy, load_policy, make_policy, start_torch
from chainforge.plugins import Plugins
from chainforge.project.stage import Run, stage, stage_main
from chainforge.records import Example
from chainforge.run.step import Step
from chainforge.run.work import open_work
from chainforge.wiring import load_student


@stage(SftSettings)
def main(run: Run[SftSettings]) -> None:
    step, settings, plugins = run.step, run.settings, run.plugins
    device = start_torch(step.settings, step.runtime)
    files = [path for path in (settings.examples, settings.extra_examples) if path]
    examples = [example for path in files for example in read_records(path, Example)]
    policy = starting_policy(settings, plugins, examples, step, device)
    teacher = load_teacher(settings, policy, device)
    apart = bool(settings.on_policy) and (splits_weights(step) or settings.adapter is not None)
    with (
        open_work(run.inputs, step.runtime) as work,
        step.output_folder(settings.output) as folder,
        answering_engine(settings, policy, examples, step, apart=apart) as engine,
    ):
        learner = LocalLearner(policy, settings, step, teacher=teacher, samples_apart=apart)
        table, summary = train(learner, teacher, examples, settings, step, work, engine)
        learner.save(folder)
        step.finish(summary, table)


def starting_policy(
    settings: SftSettings, plugins: Plugins, examples: Sequence[Example], step: Step, device: torch.device
) -> Policy:
    if settings.start_from:
        return load_policy(settings.start_from, device)
    assert settings.new_model is not None
    chosen, seed = settings.new_model, step.seed("model")
    texts = ["\n".join([*(m["content"] for m in e.messages), e.response]) for e in examples]
    return make_policy(*load_student(plugins, chosen.plugin, chosen.settings, seed=seed, texts=texts), device)


if __name__ == "__main__":
    stage_main(main, several_processes=True)
