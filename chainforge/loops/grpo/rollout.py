"""The rollout half of GRPO: prompts in, scored groups of completions out."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from chainforge.algorithms.advantages import (
    DECOUPLED,
    advantages,
    decoupled_advantages,
    zero_variance_N,
    zero_variance_NK,
)
from chainforge.config.grpo import GrpoSettings
from chainforge.errors import ChainForgeError
from chainforge.loops.grpo.ahead import Ahead
from chainforge.loops.grpo.prompt_mix import PromptMix
from chainforge.records import Group, Prompt
from chainforge.rollout.complete import Completions, begin_completions
from chainforge.rollout.engine import Engine
from chainforge.run.step import Step
from chainforge.scoring import Scorer, WeightedReward

LARGEST = 1e15  # beyond, the square of a difference, summed over a batch, leaves the range of float32


@dataclass(frozen=True, slots=True)
class Rollout:
    """Where groups come from."""

    engine: Engine
    scorer: Scorer
    tokenizer: PreTrainedTokenizerBase
    prompts: PromptMix
    settings: GrpoSettings
    step: Step
    ahead: Ahead = field(default_factory=Ahead)

    def groups(self, number: int, drawn: int) -> tuple[list[Group], int]:
        """Those of RL step `number`, and how many prompts were drawn by its end, where `drawn` were before.

        Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2) replaces groups whose rewards are all equal by
        those of the next prompts, at most `resample_rounds` times.
        """
        kept: list[Group] = []
        flat: list[Group] = []
        for _ in range(self.settings.resample_rounds + 1):
            wanted = self.settings.prompts_per_step - len(kept)
            new = self.sample(self.prompts.draw(wanted, drawn), number, drawn)
            drawn += wanted
            equal = equal_N(new, self.settings).tolist()
            kept += [group for group, is_equal in zip(new, equal, strict=True) if not is_equal]
            flat += [group for group, is_equal in zip(new, equal, strict=True) if is_equal]
            if len(kept) == self.settings.prompts_per_step:
                break
        return [*kept, *flat][: self.settings.prompts_per_step], drawn

    def sample(self, chosen: Sequence[Prompt], number: int, first: int) -> list[Group]:
        """A scored group for each of these prompts; `first` is the place of the first among all drawn."""
        completions = self.ahead.take(first) or self._begin(chosen, first)()
        return self.scorer.score(
            chosen, completions, global_step=number, max_steps=self.settings.num_rl_steps
        )

    def begin_next(self, drawn: int) -> None:
        """Start to sample the rollout whose first prompt is number `drawn`, by what the engine has now."""
        chosen = self.prompts.draw(self.settings.prompts_per_step, drawn)
        self.ahead.put(drawn, self._begin(chosen, drawn))

    def _begin(self, chosen: Sequence[Prompt], first: int) -> Callable[[], Completions]:
        settings, step = self.settings, self.step

        def seed(place: int, index: int) -> int:
            return step.seed("completion", first + place, index)

        count = settings.group_size
        return begin_completions(self.engine, self.tokenizer, chosen, count, settings, step, seed=seed)


def rewards_NG(groups: Sequence[Group]) -> Tensor:
    """The weighted rewards; NaN where none applies."""
    return torch.tensor([[score.total for score in group.scores] for group in groups])


def parts_NGK(groups: Sequence[Group], rewards: Iterable[str]) -> Tensor:
    """The rewards one by one, in this order; NaN where one does not apply."""
    given = [[[s.parts[name] for name in rewards] for s in group.scores] for group in groups]
    return torch.tensor([[[math.nan if v is None else v for v in K] for K in G] for G in given])


def advantages_NG(groups: Sequence[Group], settings: GrpoSettings) -> Tensor:
    """How much better each completion did than its group."""
    if settings.scale_rewards == DECOUPLED:
        weight_K = torch.tensor(list(settings.rewards.values()))
        return decoupled_advantages(parts_NGK(groups, settings.rewards), weight_K)
    return advantages(rewards_NG(groups), scale=settings.scale_rewards)


def equal_N(groups: Sequence[Group], settings: GrpoSettings) -> Tensor:
    """Which groups teach nothing: all of their rewards are equal."""
    if settings.scale_rewards == DECOUPLED:
        return zero_variance_NK(parts_NGK(groups, settings.rewards)).all(-1)
    return zero_variance_N(rewards_NG(groups))


def check_rewards(
    groups: Sequence[Group], rewards: Sequence[WeightedReward], number: int, before: Collection[str] = ()
) -> list[str]:
    """The names of the rewards that applied to a completion by RL step `number`; to one before it, `before`.

    Raises ChainForgeError where a reward never did, unless it may fail: there is nothing to learn from. And
    where one is too large to be compared with others.
    """
    applied, weights = set(before), {reward.name: reward.weight for reward in rewards}
    now = set()
    for group in groups:
        for score in group.scores:
            for name, value in score.parts.items():
                if value is None:
                    continue
                now.add(name)
                if abs(value * weights[name]) > LARGEST:
                    raise ChainForgeError(
                        f"the reward {name!r} overflows: it gave {value:g} for a completion of "
                        f"{group.prompt.id!r} in RL step {number}, times its weight {weights[name]:g}",
                        f"let it return numbers of ordinary size, by custom 0.0 to 1.0; at most {LARGEST:g}",
                    )
    if not now:
        raise does_not_apply(weights, number)
    applied |= now
    if idle := [r.name for r in rewards if r.name not in applied and r.options.on_error != "none"]:
        raise does_not_apply(sorted(idle), number)
    return sorted(applied)


def does_not_apply(names: Collection[str], number: int) -> ChainForgeError:
    """The error for rewards that are None for everything."""
    what = (
        f"the reward {next(iter(names))!r} is" if len(names) == 1 else f"the rewards {', '.join(names)} are"
    )
    return ChainForgeError(
        f"{what} None for every completion by RL step {number}: training would learn nothing from it",
        "give the prompts what the reward needs (an answer, its columns), or remove it from `rewards`",
    )
