"""An engine in each process of a step: each samples some of the completions, and all get all of them."""

from collections.abc import Callable, Sequence
from functools import partial

from chainforge.config.sampling import SamplingSettings
from chainforge.rollout.engine import Engine, Request, Sampled, Source
from chainforge.run.world import World

MANY = 4  # groups for each process, from which on it matters little that one has a group more


class SharedEngine:
    """See `Engine`. Each completion has its own seed, so the number of processes changes none of them."""

    def __init__(self, engine: Engine, world: World) -> None:
        self._engine, self._world = engine, world
        self.rows = engine.rows * world.size

    def generate(self, requests: Sequence[Request], settings: SamplingSettings) -> list[list[Sampled]]:
        """See `Engine`. Called by every process with the same requests."""
        rank, size = self._world.rank, self._world.size
        if len(requests) % size == 0 or len(requests) >= MANY * size:  # whole groups: prompts are read once
            said = self._world.gather(self._engine.generate(requests[rank::size], settings))
            return [said[place % size][place // size] for place in range(len(requests))]
        parts = [Request(request.prompt_ids, request.seeds[rank::size]) for request in requests]
        said = self._world.gather(self._engine.generate(parts, settings))
        return [
            [said[number % size][place][number // size] for number in range(len(request.seeds))]
            for place, request in enumerate(requests)
        ]

    def begin(
        self, requests: Sequence[Request], settings: SamplingSettings
    ) -> Callable[[], list[list[Sampled]]]:
        """See `Engine`."""
        return partial(self.generate, requests, settings)

    def update(self, source: Source, version: int) -> None:
        """See `Engine`."""
        self._engine.update(source, version)

    def close(self) -> None:
        """See `Engine`."""
        self._engine.close()
