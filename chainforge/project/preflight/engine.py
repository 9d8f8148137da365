"""Whether the engines that steps name can be started, and can do what a step asks of them."""

import os
import shutil
from collections.abc import Iterator, Mapping

from chainforge.config.distill import DistillSettings
from chainforge.config.grpo import GrpoSettings
from chainforge.config.loading import load_settings
from chainforge.config.run import RuntimeSettings
from chainforge.config.sampling import SamplingSettings
from chainforge.config.verbs import VERBS
from chainforge.errors import ChainForgeError
from chainforge.project.graph import GraphStep
from chainforge.project.preflight.device import is_there


def check_engines(graph: Mapping[str, GraphStep], runtime: RuntimeSettings) -> None:
    """Raise ChainForgeError where a step is to start vLLM, and there is no such program; or where it is to
    sample while it learns, and its servers sleep then."""
    if runtime.vllm.urls:
        return
    for name, sampling in _by_vllm(graph):
        command = runtime.vllm.command
        if not shutil.which(os.path.expanduser(command)):
            raise ChainForgeError(
                f"{name} samples with vLLM, and there is no program {command!r} (runtime.vllm.command)",
                "install vLLM in an environment of its own, as docs/vllm.md says, and name its program there",
            )
        ahead = isinstance(sampling, GrpoSettings) and sampling.max_lag
        if ahead and not runtime.vllm.gpus and _on_gpus(runtime.device):
            raise ChainForgeError(
                f"{name} has max_lag 1, to sample while the learner works, and its vLLM servers sleep then: "
                "they share the learner's GPUs (runtime.vllm.gpus is 0)",
                "give them GPUs of their own (runtime.vllm.gpus or urls), or set max_lag to 0",
            )


def _by_vllm(graph: Mapping[str, GraphStep]) -> Iterator[tuple[str, SamplingSettings]]:
    for name, step in graph.items():
        settings = load_settings(VERBS[step.verb], *step.sections)
        sampling = settings.on_policy if isinstance(settings, DistillSettings) else settings
        if isinstance(sampling, SamplingSettings) and sampling.engine.kind == "vllm":
            yield name, sampling


def _on_gpus(device: str) -> bool:
    return device == "cuda" or (device == "auto" and is_there("cuda"))
