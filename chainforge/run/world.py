"""The processes of a step: one, or those that torchrun or `accelerate launch` started with the same command.

The first one, rank 0, locks, saves, writes and shows; the others compute. What must be the same for all of
them they tell each other through the launcher's key-value store. It needs no process group, so
it works before torch.distributed has one, and whatever its backend is.
"""

import atexit
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, ParamSpec, TypeVar

from chainforge.errors import ChainForgeError, describe

T = TypeVar("T")
P = ParamSpec("P")
LAUNCH = "start it by torchrun or accelerate launch, which set RANK and WORLD_SIZE, or unset both"
AGAIN = "see what was said above, then run the same command again"
FIRST_WAIT_S, LONGEST_WAIT_S = 0.0002, 0.02  # between two looks at what the others have said
FAREWELL_S = 10.0  # that the process with the store waits for the others when it ends


@dataclass(frozen=True)
class World:
    """Which of the step's processes this one is. `rank` counts from 0."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that locks, saves, writes and shows."""
        return self.rank == 0

    def label(self, name: str) -> str:
        """The step's name for messages of this process."""
        return name if self.is_first else f"{name}, rank {self.rank} of {self.size}"

    def share(self, value: T) -> list[T]:
        """What each process says here, by rank. Every process waits for all of them.

        A value is what JSON can hold, in less than 8 MB. All processes call this equally often, in the same
        order. Raises OtherFailed when another process has failed instead of coming here.
        """
        return [value] if self.size == 1 else _meeting(self).share(value)

    def hand_out(self, value: T) -> T:
        """What the first process says here."""
        return self.share(value if self.is_first else None)[0]  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """As `share`, for anything that pickle can hold, however large: through torch.distributed."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        found: list[T] = [value] * self.size
        dist.all_gather_object(found, value)
        return found

    def once(self, do: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call it in the first process; the others wait until it is done."""
        if self.is_first:
            do(*args, **kwargs)
        self.share(None)

    def fail(self, problem: str) -> None:
        """Tell those who wait for this process that it has failed."""
        if _meeting.cache_info().currsize:  # else nobody has met yet: the launcher ends the others
            _meeting(self).fail(problem)


class OtherFailed(ChainForgeError):
    """Another process of the step failed, and said why."""

    def __init__(self, rank: int, problem: str) -> None:
        super().__init__(f"rank {rank} failed: {problem}", AGAIN)


def this_world(environment: Mapping[str, str] = os.environ) -> World:
    """Read RANK and WORLD_SIZE. Raises ChainForgeError where they make no sense."""
    given = {name: environment[name] for name in ("RANK", "WORLD_SIZE") if name in environment}
    if not given:
        return World()
    said = " and ".join(f"{name}={value}" for name, value in given.items())
    if len(given) == 1:
        missing = "WORLD_SIZE" if "RANK" in given else "RANK"
        raise ChainForgeError(f"the environment has {said} without {missing}", LAUNCH)
    if not all(value.isascii() and value.isdecimal() for value in given.values()):
        raise ChainForgeError(f"{said}: these must be whole numbers", LAUNCH)
    world = World(int(given["RANK"]), int(given["WORLD_SIZE"]))
    if world.rank >= world.size:
        raise ChainForgeError(f"{said}: ranks go from 0 to WORLD_SIZE - 1", LAUNCH)
    return world


class _Meeting:
    """Where the processes of a step talk, round by round; the store has a key per round and process."""

    def __init__(self, world: World) -> None:
        from torch.distributed.rendezvous import rendezvous

        try:
            store, _, _ = next(rendezvous("env://", world.rank, world.size))
        except (ValueError, RuntimeError) as error:  # no MASTER_ADDR, or nobody answers there
            raise ChainForgeError(
                f"the {world.size} processes cannot meet: {describe(error)}", LAUNCH
            ) from error
        self._world, self._store, self._round = world, store, 0
        atexit.register(self._leave)

    def share(self, value: Any) -> list[Any]:
        """See World."""
        rank, number = self._world.rank, self._round
        try:
            self._store.set(_key(number, rank), json.dumps({"value": value}))
            values = [self._hear(number, other) for other in range(self._world.size)]
            if number > 0:  # everybody is here, so everybody has heard what was said before
                self._store.delete_key(_key(number - 1, rank))
        except RuntimeError as error:
            raise ChainForgeError(f"the other processes are gone: {describe(error)}", AGAIN) from error
        self._round += 1
        return values

    def fail(self, problem: str) -> None:
        """See World. Never raises."""
        with suppress(RuntimeError):
            for number in (self._round, self._round + 1):  # some may be in the next round already
                self._store.set(_key(number, self._world.rank), json.dumps({"problem": problem}))

    def _hear(self, number: int, rank: int) -> Any:
        key = _key(number, rank)
        self._await([key])
        said = json.loads(self._store.get(key))
        if "problem" in said:
            raise OtherFailed(rank, said["problem"])
        return said["value"]

    def _await(self, keys: list[str], longest_s: float = math.inf) -> None:
        """Look again and again: a wait inside of the store would hold back signals."""
        wait_s, end = FIRST_WAIT_S, time.monotonic() + longest_s
        while not self._store.check(keys) and time.monotonic() < end:
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _leave(self) -> None:
        """Where the first process has the store, and not the launcher, it ends last."""
        with suppress(RuntimeError):
            self._store.set(_key("left", self._world.rank), "")
            if self._world.is_first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
                self._await([_key("left", rank) for rank in range(self._world.size)], FAREWELL_S)


def _key(number: int | str, rank: int) -> str:
    return f"chainforge/{number}/{rank}"


@cache
def _meeting(world: World) -> _Meeting:
    return _Meeting(world)
