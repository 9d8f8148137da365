"""Which prompts a step trains on: a pure function of the seed and of how many were drawn before."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from chainforge.records import Prompt
from chainforge.run.seeds import derive


@dataclass(frozen=True, slots=True)
class PromptMix:
    """Two sets of prompts; `extra_share` of what is drawn comes from the second."""

    main: Sequence[Prompt]
    extra: Sequence[Prompt]
    extra_share: float
    seed: int

    def draw(self, count: int, first: int) -> list[Prompt]:
        """Prompts number `first` to `first + count - 1`, from 0, of one endless sequence.

        Each set comes in whole passes with an order of their own: no prompt comes again before every other
        of its set has come as often. The two sets are mixed by chance.
        """
        before, after = self._extra_of(first), self._extra_of(first + count)
        main = take(self.main, first - before, first + count - after, derive(self.seed, "main"))
        extra = take(self.extra, before, after, derive(self.seed, "extra"))
        queues = [iter(main)] * len(main) + [iter(extra)] * len(extra)
        order = Random(derive(self.seed, "order", first))
        return [next(queue) for queue in order.sample(queues, count)]

    def _extra_of(self, count: int) -> int:
        """How many of the first `count` prompts come from the second set: the share, rounded."""
        return math.floor(count * self.extra_share + 0.5) if self.extra else 0


def take(prompts: Sequence[Prompt], start: int, stop: int, seed: int) -> list[Prompt]:
    """Entries `start` to `stop - 1` of the endless sequence of shuffled passes over the prompts."""
    places = (divmod(index, len(prompts)) for index in range(start, stop))
    return [prompts[shuffled(len(prompts), derive(seed, epoch))[place]] for epoch, place in places]


@lru_cache(maxsize=8)
def shuffled(count: int, seed: int) -> tuple[int, ...]:
    """The numbers below `count` in an order that depends on the seed alone."""
    return tuple(Random(seed).sample(range(count), count))
