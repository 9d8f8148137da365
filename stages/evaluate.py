"""Evaluate one checkpoint on one bench: `evaluate@CHECKPOINT-BENCH`."""

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from chainforge.config.evaluate import EvaluateSettings
from chainforge.jsonl import read_records, write_rows
from chainforge.loops.evaluate import check_bench, figures, outcome
from chainforge.loops.scored_batches import sample_and_score
from chainforge.loops.votes import reading_of
from chainforge.models.checkpoint import load_policy, start_torch
from chainforge.outputs import write_json
from chainforge.project.stage import Run, stage, stage_main
from chainforge.records import Completion, Group, Prompt
from chainforge.rollout.complete import batch_size, complete, longest_sequence
from chainforge.rollout.open_engine import device_of_checkpoint, open_engine
from chainforge.run.work import open_work
from chainforge.wiring import make_scorer


@stage(EvaluateSettings)
def main(run: Run[EvaluateSettings]) -> None:
    step, settings, plugins = run.step, run.settings, run.plugins
    checkpoint, _, bench = step.name.partition("@")[2].rpartition("-")
    scorer = make_scorer(plugins, dict.fromkeys(settings.rewards, 1.0), step, settings.reward_settings)
    prompts = read_records(Path(f"data/benches/{bench}.jsonl"), Prompt, settings.max_prompts)
    scorer.check(prompts)
    device = device_of_checkpoint(settings.engine, start_torch(step.settings, step.runtime))
    policy = load_policy(Path("checkpoints") / checkpoint, device)
    longest = partial(longest_sequence, policy.tokenizer, prompts, settings, step)
    begin = partial(open_engine, settings.engine, frozen=True, max_len=longest)

    def ask(kind: str, count: int, temperature: float) -> list[Group]:
        sampling = settings.model_copy(update={"temperature": temperature})

        def sample(batch: Sequence[Prompt]) -> Sequence[Sequence[Completion]]:
            def seed(place: int, number: int) -> int:
                return step.seed(bench, batch[place].id, number)

            return complete(engine, policy.tokenizer, batch, count, sampling, step, seed=seed)

        title, size = f"{step.name} {kind}", batch_size(engine, count)
        return sample_and_score(prompts, sample, size, scorer, work.journal(kind), work, title)

    with open_work(run.inputs, step.runtime) as work, closing(begin(policy, step)) as engine:
        sampled = ask("sampled", settings.samples, settings.temperature)
        check_bench(sampled, settings, bench)
        greedy = ask("greedy", 1, 0.0) if settings.greedy else [None] * len(sampled)
        rows = [outcome(group, best) for group, best in zip(sampled, greedy, strict=True)]
        step.world.once(write_rows, Path("data/eval") / checkpoint / f"{bench}.jsonl", rows)
        (deciding,) = (reward for reward in scorer.rewards if reward.name == settings.reward)
        read = reading_of(deciding, step.runtime.reward_timeout_s)
        summary = figures(rows, settings, step.response_format, read)
        step.world.once(write_json, Path("metrics/eval") / checkpoint / f"{bench}.json", summary)


if __name__ == "__main__":
    stage_main(main, several_processes=True)
