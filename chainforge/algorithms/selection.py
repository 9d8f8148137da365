"""Rejection sampling: which of a prompt's completions to keep, and why the others go."""

from collections.abc import Sequence
from typing import Literal

from chainforge.errors import ChainForgeError

Policy = Literal["best", "distinct"]
DropReason = Literal["low_reward", "duplicate", "over_quota"]


def select(
    rewards: Sequence[float], texts: Sequence[str], *, min_reward: float, keep: int, policy: Policy
) -> tuple[list[int], dict[DropReason, int]]:
    """Indexes of the completions to keep, best first, and how many were dropped for each reason.

    Higher reward wins, then the shorter text, then the earlier one. Texts that differ only in white space are
    duplicates. A NaN reward is below any `min_reward`. Kept and dropped add up to all.
    """
    if keep < 1:
        raise ChainForgeError(f"keep is {keep}", "keep 1 completion per prompt or more")
    if policy == "best" and keep != 1:
        raise ChainForgeError(
            f"policy 'best' keeps one completion, not {keep}", "set keep to 1, or policy to distinct"
        )
    normal = [" ".join(text.split()) for text in texts]
    acceptable = [
        i for i, (reward, _) in enumerate(zip(rewards, normal, strict=True)) if reward >= min_reward
    ]
    first_of_text: dict[str, int] = {}
    for i in sorted(acceptable, key=lambda i: (-rewards[i], len(normal[i]), i)):
        first_of_text.setdefault(normal[i], i)
    distinct = list(first_of_text.values())
    dropped: dict[DropReason, int] = {
        "low_reward": len(rewards) - len(acceptable),
        "duplicate": len(acceptable) - len(distinct),
        "over_quota": len(distinct[keep:]),
    }
    return distinct[:keep], dropped
