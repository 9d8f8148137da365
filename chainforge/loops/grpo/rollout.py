"""The rollout half of GRPO: prompts in, scored groups of completions out."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from chainforge.algorithms.advantages import zero_variance_N
from chainforge.config.grpo import GrpoSettings
from chainforge.loops.grpo.prompt_mix import PromptMix
from chainforge.loops.grpo.rewards import rewards_NG
from chainforge.records import Group, Prompt
from chainforge.rollout.complete import complete
from chainforge.rollout.engine import Engine
from chainforge.run.step import Step
from chainforge.scoring import Scorer


def roll_out(
    engine: Engine,
    scorer: Scorer,
    tokenizer: PreTrainedTokenizerBase,
    prompts: PromptMix,
    settings: GrpoSettings,
    step: Step,
    number: int,
    drawn: int,
) -> tuple[list[Group], int]:
    """Groups of RL step `number`, and how many prompts were drawn by its end, where `drawn` were before it.

    Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2) replaces groups whose rewards are all equal by
    those of the next prompts, at most `resample_rounds` times.
    """
    kept: list[Group] = []
    flat: list[Group] = []
    for _ in range(settings.resample_rounds + 1):
        wanted = settings.prompts_per_step - len(kept)
        chosen = prompts.draw(wanted, drawn)
        new = sample_groups(engine, scorer, tokenizer, chosen, settings, step, number, drawn)
        drawn += wanted
        equal = zero_variance_N(rewards_NG(new)).tolist()
        kept += [group for group, is_equal in zip(new, equal, strict=True) if not is_equal]
        flat += [group for group, is_equal in zip(new, equal, strict=True) if is_equal]
        if len(kept) == settings.prompts_per_step:
            break
    return [*kept, *flat][: settings.prompts_per_step], drawn


def sample_groups(
    engine: Engine,
    scorer: Scorer,
    tokenizer: PreTrainedTokenizerBase,
    chosen: Sequence[Prompt],
    settings: GrpoSettings,
    step: Step,
    number: int,
    first: int,
) -> list[Group]:
    """A scored group for each of these prompts; `first` is the place of the first among all drawn."""

    def seed(place: int, index: int) -> int:
        return step.seed("completion", first + place, index)

    completions = complete(engine, tokenizer, chosen, settings.group_size, settings, step, seed=seed)
    return scorer.score(chosen, completions, global_step=number, max_steps=settings.num_rl_steps)
