"""Which GPUs a step's servers get."""

import os
from collections.abc import Mapping

from chainforge.config.vllm import VllmSettings
from chainforge.errors import ChainForgeError

Gpus = tuple[str, ...]  # as CUDA_VISIBLE_DEVICES names them


def visible_gpus(count: int, environment: Mapping[str, str] = os.environ) -> Gpus:
    """The names of this process's `count` GPUs, for processes that it starts."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    return tuple(named.split(","))[:count] if named else tuple(map(str, range(count)))


def place_servers(visible: Gpus, settings: VllmSettings, learners: int) -> list[Gpus]:
    """The GPUs of each server, next to so many processes of the learner, which have the first ones.

    One server without a GPU where none is visible. Raises ChainForgeError where the settings do not fit.
    """
    size = settings.tensor_parallel
    if not visible:
        if settings.gpus or size > 1:
            raise ChainForgeError(
                "runtime.vllm.gpus or tensor_parallel asks for GPUs, and the step runs on a CPU",
                "set gpus to 0 and tensor_parallel to 1, or run it where there are GPUs",
            )
        return [()]
    first = len(visible) - settings.gpus if settings.gpus else 0
    if settings.gpus and first < learners:
        raise ChainForgeError(
            f"runtime.vllm.gpus is {settings.gpus}, and of {len(visible)} GPUs the learner needs {learners}",
            f"lower it to at most {max(0, len(visible) - learners)}, or runtime.processes",
        )
    theirs = visible[first:] if settings.gpus else visible[:learners]
    if len(theirs) % size:
        raise ChainForgeError(
            f"runtime.vllm.tensor_parallel is {size}, and the servers have {len(theirs)} GPUs",
            "set it to a number that divides them; with gpus: 0 they have one per process of the learner",
        )
    return [theirs[start : start + size] for start in range(0, len(theirs), size)]
