"""What the rewards of a rollout must be like for a group to have a baseline."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from chainforge.errors import ChainForgeError
from chainforge.records import Group
from chainforge.scoring import WeightedReward

LARGEST = 1e15  # beyond, the square of a difference, summed over a batch, leaves the range of float32


def rewards_NG(groups: Sequence[Group]) -> Tensor:
    """The weighted rewards; NaN where none applies."""
    return torch.tensor([[score.total for score in group.scores] for group in groups])


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
