"""Distillation: one student. `distill@STUDENT`."""

from functools import partial

from chainforge.config.distill import DistillSettings
from chainforge.jsonl import read_records
from chainforge.learner.fully_sharded import splits_weights
from chainforge.learner.local_learner import LocalLearner
from chainforge.learner.teacher import load_teacher
from chainforge.loops.own_answers import longest_answer, open_answers
from chainforge.loops.sft import train
from chainforge.models.checkpoint import start_torch
from chainforge.project.stage import Run, stage, stage_main
from chainforge.project.starting_policy import starting_policy
from chainforge.records import Example
from chainforge.run.work import open_work


@stage(DistillSettings)
def main(run: Run[DistillSettings]) -> None:
    step, settings = run.step, run.settings
    device = start_torch(step.settings, step.runtime)
    files = [path for path in (settings.examples, settings.extra_examples) if path]
    examples = [example for path in files for example in read_records(path, Example)]
    policy = starting_policy(settings, run.plugins, examples, step, device)
    teacher = load_teacher(settings, policy, device)
    here = settings.on_policy is not None and settings.on_policy.engine.kind == "local"
    apart = here and (splits_weights(step) or settings.adapter is not None)
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
