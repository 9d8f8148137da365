"""Which examples an SFT step holds out for the evaluation loss: a pure function of the seed."""

from random import Random

from chainforge.run.step import Step


def held_out_places(count: int, fraction: float, step: Step) -> set[int]:
    """Places among `count` examples, at most 500, and never all of them."""
    order = Random(step.seed("held-out")).sample(range(count), count)
    return set(order[: min(500, round(fraction * count), count - 1)])
