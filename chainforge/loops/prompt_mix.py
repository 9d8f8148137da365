"""Which prompts a step trains on: a pure function of the seed and the step, with nothing to save."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from chainforge.records import Prompt
from chainforge.run.seeds import derive


@dataclass(frozen=True, slots=True)
class PromptMix:
    """Two sets of prompts; `extra_share` of each draw comes from the second."""

    main: Sequence[Prompt]
    extra: Sequence[Prompt]
    extra_share: float
    seed: int

    def draw(self, count: int, position: int) -> list[Prompt]:
        """The `position`-th draw of `count` prompts, from 0: whole passes, each in an order of its own."""
        extra = round(count * self.extra_share) if self.extra else 0
        drawn = [
            *take(self.main, count - extra, position, derive(self.seed, "main")),
            *take(self.extra, extra, position, derive(self.seed, "extra")),
        ]
        return Random(derive(self.seed, "order", position)).sample(drawn, len(drawn))


def take(prompts: Sequence[Prompt], count: int, position: int, seed: int) -> list[Prompt]:
    """Entries position * count … of the endless sequence of shuffled passes over the prompts."""
    places = (divmod(index, len(prompts)) for index in range(position * count, (position + 1) * count))
    return [prompts[shuffled(len(prompts), derive(seed, epoch))[place]] for epoch, place in places]


@lru_cache(maxsize=8)
def shuffled(count: int, seed: int) -> tuple[int, ...]:
    """The numbers below `count` in an order that depends on the seed alone."""
    return tuple(Random(seed).sample(range(count), count))
