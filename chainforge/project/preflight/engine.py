"""Whether the engines that steps name can be started."""

import os
import shutil
from collections.abc import Mapping

from chainforge.config.distill import DistillSettings
from chainforge.config.loading import load_settings
from chainforge.config.sampling import SamplingSettings
from chainforge.config.verbs import VERBS
from chainforge.config.vllm import VllmSettings
from chainforge.errors import ChainForgeError
from chainforge.project.graph import GraphStep


def check_engines(graph: Mapping[str, GraphStep], vllm: VllmSettings) -> None:
    """Raise ChainForgeError where a step is to start vLLM, and there is no such program."""
    if vllm.urls or shutil.which(os.path.expanduser(vllm.command)):
        return
    for name, step in graph.items():
        settings = load_settings(VERBS[step.verb], *step.sections)
        sampling = settings.on_policy if isinstance(settings, DistillSettings) else settings
        if isinstance(sampling, SamplingSettings) and sampling.engine.kind == "vllm":
            raise ChainForgeError(
                f"{name} samples with vLLM, and there is no program {vllm.command!r} (runtime.vllm.command)",
                "install vLLM in an environment of its own, as docs/vllm.md says, and name its program there",
            )
