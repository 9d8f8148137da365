"""A step of GPU work as a CUDA graph: one launch in place of a thousand."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from chainforge.memory import is_lack_of_memory
from chainforge.run.progress import say

WARM_UP = 2  # runs, in which libraries choose their kernels and take their workspaces


def captured(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """`step` as a graph that replays it; `step` itself on other devices, or, with a word, where it cannot be.

    It runs a few times here. It must read and write the same tensors each time, and do without the host: one
    that waits for the device is found before it spoils a capture.
    """
    if device.type != "cuda":
        return step
    with torch.cuda.device(device):
        try:
            _warm_up(step)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may go on
                step()
        except Exception as error:
            if not isinstance(error, RuntimeError | NotImplementedError):
                raise
            torch.cuda.synchronize()
            reason = (
                "too little memory" if is_lack_of_memory(error) else (str(error).splitlines() or ["?"])[0]
            )
            say(f"decoding without a CUDA graph, which takes longer: {reason:.150}")
            return step
    return graph.replay


def _warm_up(step: Callable[[], None]) -> None:
    main, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(main)
    try:
        with torch.cuda.stream(side), _waiting_refused():
            for _ in range(WARM_UP):
                step()
    finally:
        main.wait_stream(side)


@contextmanager
def _waiting_refused() -> Iterator[None]:
    """Inside, an operation that waits for the device raises RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's word that this may miss some
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
