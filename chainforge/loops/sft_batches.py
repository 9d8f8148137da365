"""Which examples an SFT step trains on, in which order: a pure function of the seed."""

from collections.abc import Iterator, Sequence
from random import Random

from chainforge.config.sft import SftSettings
from chainforge.loops.held_out import held_out_places
from chainforge.models.batch import Tokens
from chainforge.run.step import Step

POOL = 32  # batches that are cut from one pool of like-length examples


def split(tokens: Sequence[Tokens], settings: SftSettings, step: Step) -> tuple[list[Tokens], list[Tokens]]:
    """(training, held out), the latter at most 500."""
    apart = held_out_places(len(tokens), settings.eval_fraction, step)
    return [t for i, t in enumerate(tokens) if i not in apart], [tokens[i] for i in sorted(apart)]


def batches(tokens: Sequence[Tokens], batch_size: int, steps: int, step: Step) -> Iterator[list[Tokens]]:
    """`steps` batches; examples of like length together, because padding is computed and thrown away."""
    made = epoch = 0
    while True:
        random = Random(step.seed("epoch", epoch))
        order = random.sample(range(len(tokens)), len(tokens))
        pools = [order[i : i + POOL * batch_size] for i in range(0, len(order), POOL * batch_size)]
        by_length = [i for pool in pools for i in sorted(pool, key=lambda i: len(tokens[i]))]
        cut = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
        for batch in random.sample(cut, len(cut)):
            if made == steps:
                return
            yield [tokens[i] for i in batch]
            made += 1
        epoch += 1
