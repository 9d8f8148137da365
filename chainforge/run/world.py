"""The processes of a step: one, or those that torchrun, `accelerate launch` or srun started alike.

The first one, rank 0, locks, saves, writes and shows; the others compute. What must be the same for all of
them they tell each other through the launcher's key-value store. It needs no process group, so
it works before torch.distributed has one, and whatever its backend is.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from chainforge.errors import ChainForgeError, describe
from chainforge.run.slurm import as_torchrun

if TYPE_CHECKING:
    from chainforge.run.meeting import Meeting

T = TypeVar("T")
P = ParamSpec("P")
# In the order of the fields of `World`: a launcher's variable, and which one is read where it is not set.
VARIABLES = {
    "RANK": "RANK",
    "WORLD_SIZE": "WORLD_SIZE",
    "LOCAL_RANK": "RANK",
    "LOCAL_WORLD_SIZE": "WORLD_SIZE",
}
LAUNCH = "start it by torchrun or accelerate launch, which set RANK and WORLD_SIZE, or unset both"


@dataclass(frozen=True)
class World:
    """Which of the step's processes this one is. `rank` counts from 0; `local_rank` and `local_size` are
    those of this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

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

    @contextmanager
    def together(self, step: str, *, on_gpus: bool = False) -> Iterator[None]:
        """Meet the others. Within the block, torch.distributed has its default process group.

        With `on_gpus`, where there are any, CUDA's current device is this process's own.

        Who fails there, or is killed, ends all processes within seconds. Raises OtherFailed in place of what
        follows from the failure of another process.
        """
        if self.size == 1:
            yield
            return
        meeting = _meeting(self)
        meeting.peers.watch(self.label(step))
        try:
            meeting.open_process_group(self.local_rank if on_gpus else None)
            yield
        except BaseException as error:
            problem = error.problem if isinstance(error, ChainForgeError) else describe(error)
            other = meeting.fail(problem, is_cut_off=isinstance(error, RuntimeError))
            meeting.close(well=False)
            if other:
                raise other from error
            raise
        meeting.close(well=True)

    def is_breaking_up(self) -> bool:
        """Whether another process on this machine has ended: then a SIGTERM is that of the launcher."""
        return bool(_meeting.cache_info().currsize) and _meeting(self).peers.some_ended()


def is_launched(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody has decided already how many processes there are."""
    return bool({"RANK", "WORLD_SIZE"} & as_torchrun(environment).keys())


def this_world(environment: Mapping[str, str] = os.environ) -> World:
    """Read RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE; without the last two, all are on this machine.

    Raises ChainForgeError where they make no sense.
    """
    variables = as_torchrun(environment)
    given = {name: variables[name] for name in VARIABLES if name in variables}
    missing = {"RANK", "WORLD_SIZE"} - given.keys()
    if len(missing) == 2:
        return World()
    said = " and ".join(f"{name}={value}" for name, value in given.items())
    if missing:
        raise ChainForgeError(f"the environment has {said} without {missing.pop()}", LAUNCH)
    if not all(value.isascii() and value.isdecimal() for value in given.values()):
        raise ChainForgeError(f"{said}: these must be whole numbers", LAUNCH)
    world = World(*(int(given.get(name, given[usual])) for name, usual in VARIABLES.items()))
    if world.rank >= world.size:
        raise ChainForgeError(f"{said}: ranks go from 0 to WORLD_SIZE - 1", LAUNCH)
    if world.local_size == 0:
        raise ChainForgeError(f"{said}: this process is on this machine", LAUNCH)
    return world


@cache
def _meeting(world: World) -> "Meeting":
    from chainforge.run.meeting import Meeting

    os.environ.update(as_torchrun(os.environ))  # torch reads them, too
    return Meeting(world.rank, world.size)
