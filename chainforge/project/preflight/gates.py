"""Gates that would stop nothing, or judge by what the checkpoint was trained for."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from chainforge.config.evaluate import EvaluateSettings
from chainforge.config.gate import GateSettings
from chainforge.config.loading import load_settings
from chainforge.config.verbs import VERBS
from chainforge.errors import ChainForgeError, unknown
from chainforge.project.gates import gate_file, guarded_steps
from chainforge.project.graph import GraphStep, outputs, settings_of


def check_gates(params: Mapping[str, Any], graph: Mapping[str, GraphStep]) -> None:
    """Raise ChainForgeError for a gate before no step, of a checkpoint, bench or grader that is not there,
    or whose grader is a reward by which the checkpoint was trained."""
    files = guarded_steps(graph)
    evaluated = (*params["untouched"], *params["checkpoints"])
    for step in graph.values():
        if step.verb != "gate":
            continue
        guarded = step.name.partition("@")[2]
        if gate_file(guarded) not in files:
            raise unknown("step with a gate before it", guarded, files.values())
        settings = settings_of(GateSettings, step.name)
        for name in (settings.checkpoint, settings.parent):
            if name not in evaluated:
                raise unknown(f"checkpoint for gates.{guarded}", name, evaluated)
        for bench in settings.benches:
            if bench not in params["benches"]:
                raise unknown(f"bench for gates.{guarded}", bench, params["benches"])
        _check_grader(f"gates.{guarded}", settings, graph.values())


def _check_grader(where: str, settings: GateSettings, steps: Collection[GraphStep]) -> None:
    graders = {
        reward
        for step in steps
        if step.verb == "evaluate"
        for reward in settings_of(EvaluateSettings, step.name).rewards
    }
    trained_by = set(_rewards_of(Path("checkpoints") / settings.checkpoint, steps))
    if settings.grader in trained_by:
        others = ", ".join(sorted(graders - trained_by)) or "none yet"
        raise ChainForgeError(
            f"{where}: {settings.checkpoint} was trained by {settings.grader}, which cannot judge it as well",
            f"name another of evaluate.rewards as its grader ({others}), or add one there",
        )
    if settings.grader not in graders:
        raise unknown(f"reward in evaluate.rewards for {where}", settings.grader, graders)


def _rewards_of(checkpoint: Path, steps: Collection[GraphStep]) -> Collection[str]:
    """The rewards of the step that makes the checkpoint; none where it is not made by rewards."""
    for step in steps:
        if checkpoint in outputs(step):
            return getattr(load_settings(VERBS[step.verb], *step.sections), "rewards", ())
    return ()
