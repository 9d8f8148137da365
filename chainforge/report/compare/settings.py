"""Which settings two runs do not share, and which results are older than their settings."""

from collections.abc import Mapping
from typing import Any

from chainforge.run.fingerprint import ABSENT, differences

Tree = Mapping[str, Any]
LOCK = "plugins.lock.json"


def changed_settings(a: Tree, b: Tree) -> dict[str, tuple[Any, Any]]:
    """(in A, in B) by dotted key; None where a run has no such setting."""
    return {
        key: (None if before is ABSENT else before, None if now is ABSENT else now)
        for key, before, now in differences(a, b)
    }


def outdated_steps(recorded: Tree, params: Tree, lock: Tree) -> set[str]:
    """The steps in dvc.lock whose result, by DVC's account, is not that of these settings and inputs."""
    stages: Tree = recorded.get("stages", {})
    makers = {out["path"]: name for name, stage in stages.items() for out in stage.get("outs", [])}
    made = {out["path"]: out.get("md5") for stage in stages.values() for out in stage.get("outs", [])}
    now = {"params.yaml": params, LOCK: lock}
    old = {
        name
        for name, stage in stages.items()
        if any(
            value_of(now.get(file, {}), key) != value
            for file, values in stage.get("params", {}).items()
            for key, value in values.items()
        )
        or any(made.get(d["path"], d.get("md5")) != d.get("md5") for d in stage.get("deps", []))
    }
    reads = {
        name: {makers[dep["path"]] for dep in stage.get("deps", []) if dep["path"] in makers}
        for name, stage in stages.items()
    }
    while follows := {name for name, sources in reads.items() if sources & old} - old:
        old |= follows
    return old


def value_of(tree: Tree, dotted: str) -> Any:
    """The value at a dotted key, or None."""
    node: Any = tree
    for key in dotted.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node
