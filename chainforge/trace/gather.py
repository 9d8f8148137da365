"""All that a run's files say about one problem, as one JSON object."""

from collections.abc import Sequence
from typing import Any

from chainforge.completions.problems import Problem
from chainforge.config.loading import PARAMS
from chainforge.project.graph import GraphStep, param, read_graph
from chainforge.project.recorded import read_recorded
from chainforge.trace.sampled import of_evaluation, of_grpo, of_sampling
from chainforge.trace.taught import of_collect, of_filter
from chainforge.trace.trained import of_training

Facts = dict[str, Any]
GATHER = {
    "collect": of_collect,
    "filter": of_filter,
    "sft": of_training,
    "distill": of_training,
    "grpo": of_grpo,
    "sample": of_sampling,
    "evaluate": of_evaluation,
}  # by verb: what a step says about a prompt id; nothing where it has nothing to do with it


def gather(prompt_id: str, problems: Sequence[Problem]) -> Facts:
    """The problem itself, then what each step of the graph did with it, in the order of the graph.

    Each step's `verb` says which keys it has: docs/lineage.md.
    """
    reward = str(param("evaluate.reward"))
    steps = []
    for step in read_graph().values():
        if step.verb in GATHER and (facts := GATHER[step.verb](step, prompt_id, reward)):
            steps.append({"step": step.name, "verb": step.verb, **facts})
    involved = {step["step"] for step in steps}
    return {
        "prompt_id": prompt_id,
        "problems": [describe(problem) for problem in problems],
        "steps": steps,
        "changed_since": [s.name for s in changed_steps() if s.name in involved],
    }


def describe(problem: Problem) -> Facts:
    """Where a problem comes from."""
    prompt = problem.prompt
    return {
        "step": problem.step,
        "split": problem.split,
        "file": str(problem.file),
        "line": problem.line,
        "source": prompt.source,
        "messages": list(prompt.messages),
        "answer": prompt.answer,
        "columns": dict(prompt.columns),
    }


def changed_steps() -> list[GraphStep]:
    """The steps whose settings are no longer those that they ran with, as dvc.lock has them."""
    recorded, changed = read_recorded(), []
    for step in read_graph().values():
        ran_with = ((recorded.get(step.name) or {}).get("params") or {}).get(str(PARAMS))
        if ran_with is not None and any(ran_with.get(s) != param(s) for s in ("run", *step.sections)):
            changed.append(step)
    return changed
