"""Try each step in a process of its own: the peak of memory is its own, and the model it changed is gone."""

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from chainforge.plugins import Plugins
from chainforge.preflight.estimate import Estimate, failed
from chainforge.preflight.stand_in import Inputs, NotYet
from chainforge.preflight.trial import try_step
from chainforge.project.graph import GraphStep
from chainforge.run.progress import say


def try_steps(
    steps: Sequence[GraphStep], graph: dict[str, GraphStep], plugins: Plugins, seconds: float
) -> Iterator[Estimate]:
    """An estimate of each. Evaluations of one model that is still to be made are tried once."""
    alike: dict[tuple[str, str], Estimate] = {}
    for step in steps:
        key = _alike(step, graph, plugins)
        if key in alike:
            like = alike[key]
            estimate = replace(like, step=step.name, findings=[], notes=[], like=like.step)
        else:
            say(f"{step.name}: …")
            estimate = _apart(step.name, seconds)
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


def _apart(step: str, seconds: float) -> Estimate:
    """Started anew, not forked: it imports what a step imports, and no thread of this process is missing."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=try_step, args=(there, step, seconds))
    child.start()
    there.close()
    try:
        estimate: Estimate = here.recv()
    except EOFError:
        child.join()
        problem = f"its try ended by itself (exit code {child.exitcode}), most often for want of memory"
        estimate = failed(step, problem, "choose a smaller model")
    finally:
        child.join()
    return estimate
