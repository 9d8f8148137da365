"""Try each step in a process of its own: the peak of memory is its own, and the model it changed is gone."""

import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from chainforge.config.distill import DistillSettings
from chainforge.config.evaluate import EvaluateSettings
from chainforge.config.grpo import GrpoSettings
from chainforge.config.sample import SampleSettings
from chainforge.config.sft import SftSettings
from chainforge.containment import no_leaving
from chainforge.errors import ChainForgeError, describe
from chainforge.plugins import Plugins
from chainforge.preflight.cost import Cost
from chainforge.preflight.estimate import Estimate, Finding
from chainforge.preflight.judge import judge
from chainforge.preflight.reinforced import try_reinforced
from chainforge.preflight.sampled import try_sampled
from chainforge.preflight.stand_in import Inputs, NotYet
from chainforge.preflight.supervised import try_supervised
from chainforge.project.graph import GraphStep, settings_of
from chainforge.run.progress import say
from chainforge.run.step import open_step

KINDS: dict[str, tuple[type[Any], Callable[..., Estimate]]] = {
    "sft": (SftSettings, try_supervised),
    "distill": (DistillSettings, try_supervised),
    "grpo": (GrpoSettings, try_reinforced),
    "sample": (SampleSettings, try_sampled),
    "evaluate": (EvaluateSettings, try_sampled),
}


def try_steps(
    steps: Sequence[GraphStep], graph: dict[str, GraphStep], plugins: Plugins, seconds: float
) -> Iterator[Estimate]:
    """An estimate of each. Evaluations of one model that is still to be made are tried once."""
    start = Cost(time.process_time(), 0.0)
    start = Cost(start.cpu, start.cpu)  # imports, which every step of dvc repro does again
    alike: dict[tuple[str, str], Estimate] = {}
    gc.freeze()
    for step in steps:
        key = _alike(step, graph, plugins)
        if key in alike:
            like = alike[key]
            estimate = replace(like, step=step.name, findings=[], notes=[], like=like.step)
        else:
            say(f"{step.name}: …")
            estimate = _apart(step, graph, plugins, seconds)
            if estimate.parts:
                estimate.parts["start"] = start
        if key and not estimate.waits_for and not estimate.failed:
            alike.setdefault(key, estimate)
        yield estimate


def _alike(step: GraphStep, graph: dict[str, GraphStep], plugins: Plugins) -> tuple[str, str] | None:
    """What decides what an evaluation is predicted from, where its checkpoint is not there."""
    if step.verb != "evaluate" or not step.name.startswith("evaluate@"):
        return None
    checkpoint, _, bench = step.name.partition("@")[2].rpartition("-")
    try:
        model = Inputs(graph, plugins).model(Path("checkpoints") / checkpoint)
    except NotYet:
        return None
    return (repr(model), bench) if model else None


def _apart(step: GraphStep, graph: dict[str, GraphStep], plugins: Plugins, seconds: float) -> Estimate:
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(there, step, graph, plugins, seconds))
    child.start()
    there.close()
    try:
        estimate: Estimate = here.recv()
    except EOFError:
        child.join()
        problem = f"its try ended by itself (exit code {child.exitcode}), most often for want of memory"
        estimate = Estimate(step.name, failed=True, findings=[_stop(problem, "choose a smaller model")])
    finally:
        child.join()
    return estimate


def _work(
    pipe: Connection, step: GraphStep, graph: dict[str, GraphStep], plugins: Plugins, seconds: float
) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    kind, attempt = KINDS[step.verb]
    estimate = Estimate(step.name)
    try:
        with no_leaving():
            opened, settings = open_step(step.name), settings_of(kind, step.name)
            if getattr(getattr(settings, "engine", None), "kind", "local") == "vllm":
                raise NotYet("engine vllm would start its servers; chainforge memory says what it holds")
            estimate = attempt(opened, settings, Inputs(graph, plugins), seconds, step.sections[-1])
            judge(estimate, opened.settings, on_cpu=opened.runtime.device in ("auto", "cpu"))
    except NotYet as missing:
        estimate.waits_for = str(missing)
    except ChainForgeError as error:
        estimate.failed = True
        estimate.findings.append(_stop(error.problem, error.fix))
    except Exception as error:
        estimate.failed = True
        estimate.findings.append(_stop(describe(error), "run the step to see its traceback"))
    pipe.send(estimate)
    pipe.close()


def _stop(problem: str, fix: str) -> Finding:
    return Finding(problem, fix, loss=1.0, stops=True)
