"""The try of one step, in the process that is there for it."""

import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from chainforge.config.distill import DistillSettings
from chainforge.config.evaluate import EvaluateSettings
from chainforge.config.grpo import GrpoSettings
from chainforge.config.sample import SampleSettings
from chainforge.config.sft import SftSettings
from chainforge.containment import no_leaving
from chainforge.errors import ChainForgeError, describe
from chainforge.models.checkpoint import choose_device
from chainforge.plugins import load_plugins
from chainforge.preflight.estimate import Estimate, failed
from chainforge.preflight.judge import judge
from chainforge.preflight.reinforced import try_reinforced
from chainforge.preflight.sampled import try_sampled
from chainforge.preflight.stand_in import Inputs, NotYet
from chainforge.preflight.supervised import try_supervised
from chainforge.project.graph import read_graph, settings_of
from chainforge.run.step import open_step

KINDS: dict[str, tuple[type[Any], Callable[..., Estimate]]] = {
    "sft": (SftSettings, try_supervised),
    "distill": (DistillSettings, try_supervised),
    "grpo": (GrpoSettings, try_reinforced),
    "sample": (SampleSettings, try_sampled),
    "evaluate": (EvaluateSettings, try_sampled),
}


def try_step(pipe: Connection, name: str, seconds: float) -> None:
    """Send an estimate of the step, whatever goes wrong."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        with no_leaving():
            estimate = _try(name, seconds)
    except NotYet as missing:
        estimate = Estimate(name, waits_for=str(missing))
    except ChainForgeError as error:
        estimate = failed(name, error.problem, error.fix)
    except Exception as error:
        estimate = failed(name, describe(error), "run the step to see its traceback")
    pipe.send(estimate)
    pipe.close()


def _try(name: str, seconds: float) -> Estimate:
    graph, plugins = read_graph(), load_plugins()
    kind, attempt = KINDS[graph[name].verb]
    step, settings = open_step(name), settings_of(kind, name)
    if getattr(getattr(settings, "engine", None), "kind", "local") == "vllm":
        raise NotYet("engine vllm would start its servers; chainforge memory says what it holds")
    estimate = attempt(step, settings, Inputs(graph, plugins), seconds, graph[name].sections[-1])
    judge(estimate, step.settings, on_cpu=choose_device(step.runtime.device).type == "cpu")
    return estimate
