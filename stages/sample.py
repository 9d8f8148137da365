"""Rejection sampling: accepted completions of a checkpoint, as examples to train on."""

from collections.abc import Sequence
from contextlib import closing
from functools import partial

from chainforge.config.sample import SampleSettings
from chainforge.errors import ChainForgeError
from chainforge.jsonl import read_records, write_records
from chainforge.loops.rejection import accept, choose
from chainforge.loops.scored_batches import sample_and_score
from chainforge.models.checkpoint import load_policy, start_torch
from chainforge.project.stage import Run, stage, stage_main
from chainforge.records import Completion, Prompt
from chainforge.rollout.complete import batch_size, complete, longest_sequence
from chainforge.rollout.open_engine import device_of_checkpoint, open_engine
from chainforge.run.kept_completions import keep_samples
from chainforge.run.work import open_work
from chainforge.wiring import make_scorer


@stage(SampleSettings)
def main(run: Run[SampleSettings]) -> None:
    step, settings, plugins = run.step, run.settings, run.plugins
    scorer = make_scorer(plugins, settings.rewards, step, settings.reward_settings)
    prompts = read_records(settings.prompts, Prompt, settings.max_prompts)
    if settings.extra_prompts:
        prompts += read_records(settings.extra_prompts, Prompt, settings.extra_max_prompts)
    scorer.check(prompts)
    device = device_of_checkpoint(settings.engine, start_torch(step.settings, step.runtime))
    policy = load_policy(settings.start_from, device)
    longest = partial(longest_sequence, policy.tokenizer, prompts, settings, step)
    begin = partial(open_engine, settings.engine, frozen=True, max_len=longest)

    def sample(batch: Sequence[Prompt]) -> Sequence[Sequence[Completion]]:
        def seed(place: int, number: int) -> int:
            return step.seed(batch[place].id, number)

        return complete(engine, policy.tokenizer, batch, settings.samples, settings, step, seed=seed)

    with open_work(run.inputs, step.runtime) as work, closing(begin(policy, step)) as engine:
        size = batch_size(engine, settings.samples)
        groups = sample_and_score(prompts, sample, size, scorer, work.journal("groups"), work, step.name)
        keep_samples(groups, lambda group: choose(group, settings)[0], step)
        examples, counts = accept(groups, settings)
        if not examples:
            raise ChainForgeError(
                f"no completion was accepted: {counts}", "lower min_reward, or train longer before"
            )
        step.world.once(write_records, settings.output, examples)
        step.finish(counts)


if __name__ == "__main__":
    stage_main(main, several_processes=True)
