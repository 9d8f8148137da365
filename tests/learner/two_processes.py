"""A function in two processes over gloo, in one folder that they share."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from forked import SERVER
from torch.multiprocessing import start_processes

PROCESSES = 2
SHARINGS = ("data-parallel", "fully-sharded")


def by_two(do: Callable[[Path], Any], folder: Path) -> list[Any]:
    """What `do(folder)` returns in each process, by rank: tensors, numbers, texts, lists and mappings."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    start_processes(
        _in_process,
        args=(folder, port, dict(os.environ), do),
        nprocs=PROCESSES,
        start_method=SERVER.get_start_method(),
    )
    return [torch.load(_found(folder, rank), weights_only=True) for rank in range(PROCESSES)]


def _in_process(
    rank: int, folder: Path, port: int, environment: dict[str, str], do: Callable[[Path], Any]
) -> None:
    os.chdir(folder)
    os.environ.clear()  # the server's is that of the first test
    os.environ.update(environment)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(PROCESSES)}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=PROCESSES)
    try:
        torch.save(do(folder), _found(folder, rank))
        dist.barrier()  # the first one may have a store that the other still reads
    finally:
        dist.destroy_process_group()


def _found(folder: Path, rank: int) -> Path:
    return folder / f"found-{rank}.pt"
