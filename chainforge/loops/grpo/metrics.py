"""One row of figures per RL step, under the names that TRL's users know."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

import torch

from chainforge.algorithms.advantages import deviation, zero_variance_N
from chainforge.loops.grpo.rollout import rewards_NG
from chainforge.records import Group

WATCH_NAMES = ("watch/reward", "watch/grader")
DRIFT, MASKED = "sampling/sampling_logp_difference/mean", "sampling/masked_sequences"
UPDATE_NAMES = {
    "kl": "kl",
    "entropy": "entropy",
    "clip_low": "clip_ratio/low_mean",
    "clip_high": "clip_ratio/high_mean",
    "clip_region": "clip_ratio/region_mean",
    "drift": DRIFT,
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}
MISMATCH_NAMES = {  # where the sampler may not be the policy
    "drift_max": "sampling/sampling_logp_difference/max",
    "ratio_min": "sampling/importance_sampling_ratio/min",
    "ratio_mean": "sampling/importance_sampling_ratio/mean",
    "ratio_max": "sampling/importance_sampling_ratio/max",
    "masked": MASKED,
    "capped": "sampling/capped_tokens",
}

OVER_STEPS: Mapping[str, Callable[[Sequence[float]], float]] = {"min": min, "max": max}


def columns(rewards: Iterable[str], *, corrected: bool = False, watched: bool = False) -> list[str]:
    """The columns of plots/STEP.csv for these rewards."""
    return [
        "reward",
        "reward_std",
        "frac_reward_zero_std",
        *(f"rewards/{name}/{figure}" for name in rewards for figure in ("mean", "std")),
        *(f"completions/{figure}_length" for figure in ("mean", "min", "max", "mean_terminated")),
        "completions/clipped_ratio",
        "num_tokens",
        *UPDATE_NAMES.values(),
        *(MISMATCH_NAMES.values() if corrected else ()),
        *(WATCH_NAMES if watched else ()),
    ]


def rollout_metrics(groups: Sequence[Group], rewards: Iterable[str]) -> dict[str, float]:
    """What the completions were like.

    `reward_std` is the mean over groups of the deviation of the rewards that apply. Missing rewards are left
    out, and so are groups with fewer than two; it is NaN where no group is left.
    """
    reward_NG = rewards_NG(groups)
    completions = [completion for group in groups for completion in group.completions]
    lengths = [len(c.token_ids) for c in completions]
    ended = [len(c.token_ids) for c in completions if c.finish == "stop"]
    metrics = {
        "reward": reward_NG.nanmean().item(),
        "reward_std": deviation(reward_NG, dim=-1).nanmean().item(),
        "frac_reward_zero_std": zero_variance_N(reward_NG).float().mean().item(),
        "completions/mean_length": fmean(lengths),
        "completions/min_length": min(lengths),
        "completions/max_length": max(lengths),
        "completions/mean_terminated_length": fmean(ended) if ended else float("nan"),
        "completions/clipped_ratio": 1 - len(ended) / len(lengths),
        "num_tokens": sum(lengths),
    }
    for name in rewards:
        parts = [s.parts[name] for group in groups for s in group.scores if s.parts[name] is not None]
        values = torch.tensor(parts or [float("nan")])
        metrics[f"rewards/{name}/mean"] = values.mean().item()
        metrics[f"rewards/{name}/std"] = values.std().item() if len(values) > 1 else float("nan")
    return metrics


def update_metrics(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the optimizer steps of one rollout; nothing where no completion had a gradient. The least of
    what is named min, the greatest of what is named max."""
    return {
        column: OVER_STEPS.get(column.rpartition("/")[2], fmean)(values)
        for name, column in (UPDATE_NAMES | MISMATCH_NAMES).items()
        if (values := [u[name] for u in updates if name in u])
    }
