"""GRPO: raise the reward of what the policy samples. Steps grpo_reasoning and grpo_final."""

from collections.abc import Sequence

from chainforge.config.grpo import GrpoSettings
from chainforge.jsonl import read_records
from chainforge.loops.grpo.prompt_mix import PromptMix
from chainforge.loops.grpo.train import train
from chainforge.models.checkpoint import load_policy, save_policy, start_torch
from chainforge.outputs import whole_folder
from chainforge.project.stage import Run, stage, stage_main
from chainforge.records import Group, Prompt
from chainforge.rollout.complete import complete, sampling_model
from chainforge.run.work import open_work
from chainforge.wiring import make_scorer


@stage(GrpoSettings)
def main(run: Run[GrpoSettings]) -> None:
    step, settings, plugins = run.step, run.settings, run.plugins
    scorer = make_scorer(plugins, settings.rewards, step)
    extra = read_records(settings.extra_prompts, Prompt) if settings.extra_prompts else []
    own = read_records(settings.prompts, Prompt)
    scorer.check([*own, *extra])
    prompts = PromptMix(own, extra, settings.extra_share, step.seed("prompts"))
    device = start_torch(step.settings, step.runtime)
    policy = load_policy(settings.start_from, device)
    reference = load_policy(settings.start_from, device) if settings.kl_coeff > 0 else None

    def rollout(chosen: Sequence[Prompt], number: int, first: int) -> list[Group]:
        completions = complete(
            policy,
            sampling_model(policy, step),
            chosen,
            settings.group_size,
            settings,
            seed=lambda place, index: step.seed("completion", first + place, index),
            step=step,
        )
        return scorer.score(chosen, completions, global_step=number, max_steps=settings.num_rl_steps)

    with (
        open_work(run.inputs, step.runtime) as work,
        whole_folder(settings.output) as folder,
    ):
        may_fail = [reward.name for reward in scorer.rewards if reward.options.on_error == "none"]
        table, summary = train(policy, reference, prompts, rollout, settings, step, work, may_fail=may_fail)
        save_policy(policy, folder)
        step.finish(summary, table)


if __name__ == "__main__":
    stage_main(main)
