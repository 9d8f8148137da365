"""Supervised fine-tuning: the cold start, and the refinement."""

from functools import partial

from chainforge.config.sft import SftSettings
from chainforge.jsonl import read_records
from chainforge.learner.local_learner import LocalLearner
from chainforge.loops.sft import longest_example, train
from chainforge.models.checkpoint import start_torch
from chainforge.project.stage import Run, stage, stage_main
from chainforge.project.starting_policy import starting_policy
from chainforge.records import Example
from chainforge.run.work import open_work


@stage(SftSettings)
def main(run: Run[SftSettings]) -> None:
    step, settings, plugins = run.step, run.settings, run.plugins
    device = start_torch(step.settings, step.runtime)
    files = [path for path in (settings.examples, settings.extra_examples) if path]
    examples = [example for path in files for example in read_records(path, Example)]
    policy = starting_policy(settings, plugins, examples, step, device)
    longest = partial(longest_example, policy.tokenizer, examples, settings, step)
    with (
        open_work(run.inputs, step.runtime) as work,
        step.output_folder(settings.output) as folder,
    ):
        learner = LocalLearner(policy, settings, step, longest=longest)
        table, summary = train(learner, None, examples, settings, step, work)
        learner.save(folder)
        step.finish(summary, table)


if __name__ == "__main__":
    stage_main(main, several_processes=True)
