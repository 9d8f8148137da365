"""Names in params.yaml that nobody answers to."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from chainforge.config.report import ReportSettings
from chainforge.errors import ChainForgeError, unknown
from chainforge.project.graph import GraphStep, outputs, settings_of

BASE = "base"  # the name of the untouched base model among checkpoints


def check_names(params: Mapping[str, Any], graph: Mapping[str, GraphStep]) -> None:
    """Raise ChainForgeError for a checkpoint, a bench or a parent that no step of the graph knows."""
    if not isinstance(params.get("profile"), str):
        raise ChainForgeError(
            f"params.yaml: profile is {params.get('profile')!r:.80}",
            "write a name there, such as: profile: mine",
        )
    _check_untouched(params["untouched"])
    _check_checkpoints(params["checkpoints"], graph.values())
    _check_benches(params.get("benches"), graph)
    for step in graph.values():
        if step.verb == "report":
            evaluated = (*params["untouched"], *params["checkpoints"])
            _check_parents(settings_of(ReportSettings, step.name), evaluated)


def _check_untouched(names: Collection[str]) -> None:
    if any(name != BASE for name in names):
        raise ChainForgeError(
            f"params.yaml: untouched is {list(names)!r:.80}",
            f"[{BASE}] evaluates base_model as it is, and [] does not; for other models: chainforge evaluate",
        )


def _check_checkpoints(names: Collection[str], steps: Collection[GraphStep]) -> None:
    made = {path for step in steps for path in outputs(step)}
    for name in names:
        path = Path("checkpoints") / name
        if path not in made:
            known = ", ".join(sorted(p.name for p in made if p.parent == Path("checkpoints")))
            raise ChainForgeError(
                f"params.yaml: checkpoints has {name}, but no step makes {path}",
                f"take it out of `checkpoints` and report.parents, or let a step write it; made: {known}",
            )


def _check_benches(benches: Any, graph: Mapping[str, GraphStep]) -> None:
    evaluated = {step.name.rpartition("-")[2] for step in graph.values() if step.verb == "evaluate"}
    if not isinstance(benches, Mapping) or not benches:
        raise ChainForgeError(f"params.yaml: benches is {benches!r:.80}", "write one section per bench there")
    for bench in benches:
        if "-" in bench:
            raise ChainForgeError(
                f"params.yaml: benches has the name {bench}", "name it with letters, digits and _ alone"
            )
        if bench not in evaluated:
            raise ChainForgeError(
                f"params.yaml: benches has {bench}, which no step evaluates",
                f"add it to `bench` of stanza evaluate in dvc.yaml, or take it out; "
                f"evaluated: {', '.join(sorted(evaluated))}",
            )


def _check_parents(report: ReportSettings, checkpoints: Collection[str]) -> None:
    for name in (*report.parents, *report.parents.values()):
        if name not in checkpoints:
            raise unknown("checkpoint for report.parents", name, checkpoints)
