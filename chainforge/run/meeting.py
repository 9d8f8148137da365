"""Where the processes of a step talk: the key-value store of whoever started them.

It needs no process group, so it works before torch.distributed has one, and whatever its backend is.
"""

import json
import math
import os
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from chainforge.errors import ChainForgeError, describe
from chainforge.run.ending import BEREFT
from chainforge.run.peers import Failure, Peers, this_process

LAUNCH = "start it by torchrun, accelerate launch or srun, which set what it needs; or by python -m alone"
AGAIN = "see what was said above, then run the same command again"
FIRST_WAIT_S, LONGEST_WAIT_S = 0.0002, 0.02  # between two looks at what the others have said
GATHER_S = 600.0  # that the processes of all machines may take to start
FAREWELL_S = 10.0  # that the process with the store waits for the others when it ends
FIRST_FAILS_S = 1.0  # that others wait for the first process to say what has failed in all of them
EVIDENCE_S = 3.0  # that a broken connection waits for the reason: another process that has ended
TELLS_S = 2.0  # that who failed first gets to say why, and to be seen by the launcher
# Of one collective operation. A process that dies is noticed by `Peers`, long before: this ends a deadlock.
COLLECTIVE_TIMEOUT = timedelta(hours=1)


class OtherFailed(ChainForgeError):
    """Another process of the step failed, and said why, or was killed. `is_near`: on this machine."""

    def __init__(self, failure: Failure, *, is_near: bool) -> None:
        super().__init__(f"rank {failure.rank} failed: {failure.problem}", AGAIN)
        self.rank, self.is_near, self.exit_code = failure.rank, is_near, BEREFT if failure.is_dead else 1


class Meeting:
    """What the process of this rank says and hears. All `share` equally often, in the same order."""

    def __init__(self, rank: int, size: int) -> None:
        from torch.distributed.rendezvous import rendezvous

        try:
            store, _, _ = next(rendezvous("env://", rank, size))
        except (ValueError, RuntimeError) as error:  # no MASTER_ADDR, or nobody answers there
            raise ChainForgeError(f"the {size} processes cannot meet: {describe(error)}", LAUNCH) from error
        self._store, self._rank, self._size, self._round = store, rank, size, 0
        self._store.set(_key("here", rank), json.dumps(this_process()))
        self._await([_key("here", each) for each in range(size)], GATHER_S, "some of them have not started")
        here = [json.loads(self._store.get(_key("here", each))) for each in range(size)]
        self.peers = Peers(rank, here, store.clone())  # a connection of its own: a wait holds up all of one's

    def open_process_group(self, gpu: int | None) -> None:
        """Make torch.distributed's default group: gloo on the CPU, and NCCL on this process's GPU, if any."""
        import torch
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore

        is_on_gpu = gpu is not None and torch.cuda.is_available()
        if gpu is not None and is_on_gpu:
            _take_gpu(gpu, torch.cuda.device_count())
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if is_on_gpu else "gloo",
            store=PrefixStore("chainforge/group", self._store.clone()),
            rank=self._rank,
            world_size=self._size,
            timeout=COLLECTIVE_TIMEOUT,
        )

    def share(self, value: Any) -> list[Any]:
        """What each process says here, by rank. Raises OtherFailed where one has failed instead."""
        number = self._round
        try:
            self._store.set(_key(number, self._rank), json.dumps(value))
            keys = [_key(number, other) for other in range(self._size)]
            self._await(keys)
            values = [json.loads(self._store.get(key)) for key in keys]
            if number > 0:  # everybody is here, so everybody has heard what was said before
                self._store.delete_key(_key(number - 1, self._rank))
        except RuntimeError as error:
            raise ChainForgeError(f"the other processes are gone: {describe(error)}", AGAIN) from error
        self._round += 1
        return values

    def failure(self) -> OtherFailed | None:
        """Of another process, whether it said so or is gone."""
        found = self.peers.failure
        return OtherFailed(found, is_near=self.peers.is_near(found.rank)) if found else None

    def fail(self, problem: str, *, is_cut_off: bool) -> OtherFailed | None:
        """Tell the others that this process has failed. Returns who failed before, if one did. Never raises.

        `is_cut_off`: it may well have failed because another one is gone.
        """
        patience = EVIDENCE_S if is_cut_off else FIRST_FAILS_S if self._rank > 0 else 0.0
        end = time.monotonic() + patience
        while not (self.peers.look() or self.failure()) and time.monotonic() < end:
            time.sleep(LONGEST_WAIT_S)
        self.peers.blame(self._rank, problem)
        other = self.failure()
        if other and other.exit_code == BEREFT:
            time.sleep(TELLS_S)
        elif other:
            self.peers.await_left(other.rank, TELLS_S)
        return other

    def close(self, *, well: bool) -> None:
        """Leave the others. Never raises, and waits for nobody who has failed."""
        import torch.distributed as dist

        if well and dist.is_initialized():
            dist.destroy_process_group()
        self.peers.leave()
        if self._rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            for rank in range(1, self._size):  # the store is this process's
                self.peers.await_left(rank, FAREWELL_S)

    def _await(self, keys: Sequence[str], longest_s: float = math.inf, problem: str = "") -> None:
        """Look again and again: a wait inside of the store would hold back signals."""
        wait_s, end = FIRST_WAIT_S, time.monotonic() + longest_s
        while not self._store.check(list(keys)):
            if time.monotonic() > end:
                raise ChainForgeError(f"the {self._size} processes cannot meet: {problem}", LAUNCH)
            if "peers" in vars(self) and (failure := self.failure()):
                raise failure
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def _take_gpu(number: int, count: int) -> None:
    """Make it CUDA's current device. Some launchers show each process its own GPU alone, as number 0."""
    import torch

    if number >= count > 1:
        raise ChainForgeError(
            f"process {number + 1} of this machine has no GPU: there are {count}", "start one for each GPU"
        )
    torch.cuda.set_device(number % count)


def _key(what: int | str, rank: int) -> str:
    return f"chainforge/{what}/{rank}"
