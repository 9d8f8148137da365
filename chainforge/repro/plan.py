"""Which steps have to run, what each waits for, and which of those that could start goes first."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage

Plan = dict[str, list[str]]  # step → the steps whose outputs it reads, each of which comes before it


def read_plan(repo: "Repo", targets: Sequence[str]) -> tuple[Plan, Mapping[str, "Stage"]]:
    """What `dvc repro TARGET ...` may have to run, and DVC's stage of each step. Raises DvcException.

    `lock`, and what else always runs and waits for nothing, has run then: others may have changed by it.
    """
    from dvc.repo.reproduce import get_active_graph, plan_repro

    graph = get_active_graph(repo.index.graph)
    wanted = [stage for target in targets or ["dvc.yaml"] for stage in repo.stage.collect(target)]
    stages = {stage.addressing: stage for stage in plan_repro(graph, wanted)}
    plan = {step: [before.addressing for before in graph.successors(stages[step])] for step in stages}
    first = [step for step, stage in stages.items() if stage.always_changed and not plan[step]]
    if first:
        repo.reproduce(first, single_item=True)
    with repo.lock:
        changed = {step for step, stage in stages.items() if step not in first and stage.changed()}
    return only_changed(plan, changed), stages


def only_changed(plan: Plan, changed: set[str]) -> Plan:
    """What is left of a plan: the steps that have changed, and all that wait for one of them."""
    left: Plan = {}
    for step, waits_for in plan.items():
        if step in changed or any(before in left for before in waits_for):
            left[step] = [before for before in waits_for if before in left]
    return left


def by_urgency(plan: Plan) -> list[str]:
    """The steps, those first after which the longest chain of others has to wait."""
    chain = dict.fromkeys(plan, 0)
    for step in reversed(plan):
        for before in plan[step]:
            chain[before] = max(chain[before], chain[step] + 1)
    return sorted(plan, key=lambda step: -chain[step])
