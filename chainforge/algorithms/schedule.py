"""Learning rate schedules: what to multiply the learning rate by at step 1 … `steps`."""

import math
from collections.abc import Mapping
from typing import Protocol

from chainforge.errors import ChainForgeError


class Schedule(Protocol):
    """A schedule, by the name it has in params.yaml."""

    def __call__(self, step: int, *, steps: int, warmup_fraction: float, floor_fraction: float) -> float: ...


def cosine_with_warmup(step: int, *, steps: int, warmup_fraction: float, floor_fraction: float) -> float:
    """Climbs in a line to 1, then falls on half a cosine to `floor_fraction` at the last step.

    The peak is the step after the warm-up. Source: arXiv 1608.03983, eq. 5, without restarts.
    """
    warmup = warmup_steps(step, steps, warmup_fraction)
    if step <= warmup:
        return step / (warmup + 1)
    progress = (step - 1 - warmup) / max(1, steps - 1 - warmup)
    return floor_fraction + (1 - floor_fraction) * (1 + math.cos(math.pi * progress)) / 2


def constant_with_warmup(
    step: int, *, steps: int, warmup_fraction: float, floor_fraction: float = 1.0
) -> float:
    """Climbs in a line to 1 and stays there, whatever `floor_fraction` is."""
    warmup = warmup_steps(step, steps, warmup_fraction)
    return min(1.0, step / (warmup + 1))


def warmup_steps(step: int, steps: int, warmup_fraction: float) -> int:
    """How many steps are below the peak: at most all but the last one."""
    if not 1 <= step <= steps:
        raise ChainForgeError(f"step {step} is outside of 1…{steps}", "count steps from 1")
    return min(round(warmup_fraction * steps), steps - 1)


SCHEDULES: Mapping[str, Schedule] = {"cosine": cosine_with_warmup, "constant": constant_with_warmup}
