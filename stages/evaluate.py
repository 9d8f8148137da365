"""Evaluate one checkpoint, or the untouched base model, on one bench: `evaluate@CHECKPOINT-BENCH`."""

from pathlib import Path

from chainforge import __version__
from chainforge.config.bench import bench_file
from chainforge.config.evaluate import EvaluateSettings
from chainforge.jsonl import read_records, write_rows
from chainforge.loops.conditions import conditions
from chainforge.loops.evaluate import evaluate
from chainforge.loops.figures import figures
from chainforge.loops.votes import reading_of
from chainforge.models.checkpoint import load_policy, start_torch
from chainforge.outputs import write_json
from chainforge.project.graders import grader_versions
from chainforge.project.new_policy import new_policy
from chainforge.project.stage import Run, stage, stage_main
from chainforge.records import Prompt
from chainforge.rollout.open_engine import device_of_checkpoint
from chainforge.run.work import open_work
from chainforge.wiring import make_scorer


@stage(EvaluateSettings)
def main(run: Run[EvaluateSettings]) -> None:
    step, settings = run.step, run.settings
    checkpoint, _, bench = step.name.partition("@")[2].rpartition("-")
    scorer = make_scorer(run.plugins, dict.fromkeys(settings.rewards, 1.0), step, settings.reward_settings)
    prompts = read_records(bench_file(bench), Prompt, settings.max_prompts)
    scorer.check(prompts)
    device = device_of_checkpoint(settings.engine, start_torch(step.settings, step.runtime))
    if base := settings.base_model:
        texts = [message["content"] for prompt in prompts for message in prompt.messages]
        policy = new_policy(base, run.plugins, texts, step, device)
    else:
        policy = load_policy(Path("checkpoints") / checkpoint, device)
    graders = grader_versions(run.plugins, settings.rewards)
    measured = conditions(prompts, policy.tokenizer, settings, step, graders, __version__)
    with open_work(run.inputs, step.runtime) as work:
        rows = evaluate(bench, prompts, policy, scorer, settings, step, work)
        (deciding,) = (reward for reward in scorer.rewards if reward.name == settings.reward)
        read = reading_of(deciding, step.runtime.reward_timeout_s)
        found = figures(rows, settings, step.response_format, read)
        answers = Path("data/eval") / checkpoint
        step.world.once(write_rows, answers / f"{bench}.jsonl", rows)
        step.world.once(write_json, answers / f"{bench}.record.json", measured)
        step.world.once(write_json, Path("metrics/eval") / checkpoint / f"{bench}.json", found)


if __name__ == "__main__":
    stage_main(main, several_processes=True)
