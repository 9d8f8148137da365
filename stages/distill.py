"""Distillation: one student. `distill@STUDENT`."""

from functools import partial

from chainforge.config.distill import DistillSettings
from chainforge.jsonl import read_records
from chainforge.learner.local_learner import LocalLearner
from chainforge.learner.teacher import load_teacher
from chainforge.loops.own_answers import longest_answer, open_answers
from chainforge.loops.sft import train
from chainforge.models.checkpoint import start_torch
from chainforge.project.stage import Run, stage, stage_main
from chainforge.project.starting_policy import starting_policy
from chainforge.records import Example
from chainforge.rollout.open_engine import samples_apart
from chainforge.run.work import open_work


@stage(DistillSettings)
def main(run: Run[DistillSettings]) -> None:
    step, settings = run.step, run.settings
    device = start_torch(step.settings, step.runtime)
    files = [path for path in (settings.examples, settings.extra_examples) if path]
    examples = [example for path in files for example in read_records(path, Example)]
    policy = starting_policy(settings, run.plugins, examples, step, device)
    teacher = load_teacher(settings, policy, device)
    engine = settings.on_policy.engine if settings.on_policy else None
    apart = samples_apart(engine, settings.adapter, step)
    longest = partial(longest_answer, policy.tokenizer, examples, settings, step)
    with (
        open_work(run.inputs, step.runtime) as work,
        step.output_folder(settings.output) as folder,
        open_answers(settings, policy, examples, step, apart=apart) as answers,
    ):
        learner = LocalLearner(policy, settings, step, teacher=teacher, samples_apart=apart, longest=longest)
        table, summary = train(learner, teacher, examples, settings, step, work, answers)
        learner.save(folder)
        step.finish(summary, table)


if __name__ == "__main__":
    stage_main(main, several_processes=True)
