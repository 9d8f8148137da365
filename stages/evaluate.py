"""Evaluate one checkpoint on one bench: `evaluate@CHECKPOINT-BENCH`."""

from pathlib import Path

from chainforge.config.evaluate import EvaluateSettings
from chainforge.graph import settings_of
from chainforge.jsonl import read_records, write_rows
from chainforge.loops.evaluate import check_bench, figures, outcome
from chainforge.models.checkpoint import load_policy, start_torch
from chainforge.outputs import write_json
from chainforge.plugins import load_plugins
from chainforge.records import Group, Prompt
from chainforge.rollout.complete import complete
from chainforge.run.step import open_step, stage_main
from chainforge.wiring import make_scorer


def main(name: str) -> None:
    step, settings = open_step(name), settings_of(EvaluateSettings, name)
    checkpoint, _, bench = name.partition("@")[2].rpartition("-")
    scorer = make_scorer(load_plugins(), settings.rewards, step)
    policy = load_policy(Path("checkpoints") / checkpoint, start_torch(step.settings, step.runtime))
    prompts = read_records(settings.prompts, Prompt)[: settings.max_prompts]

    def answers(samples: int, **overrides: float) -> list[Group]:
        completions = complete(
            policy,
            prompts,
            samples,
            settings.model_copy(update=overrides),
            seed=lambda prompt_id, index: step.seed(bench, prompt_id, index),
            step=step,
            show_progress=True,
        )
        return scorer.score(prompts, completions)

    sampled = answers(settings.samples)
    check_bench(sampled, settings, bench)
    greedy = answers(1, temperature=0.0) if settings.greedy else [None] * len(sampled)
    rows = [outcome(group, best) for group, best in zip(sampled, greedy, strict=True)]
    write_rows(Path("data/eval") / checkpoint / f"{bench}.jsonl", rows)
    write_json(
        Path("metrics/eval") / checkpoint / f"{bench}.json", figures(rows, settings, step.response_format)
    )


if __name__ == "__main__":
    stage_main(main)
