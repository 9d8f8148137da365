"""The gates before expensive steps: data/gates/STEP, which STEP waits for.

A gate that passed has the same bytes as one that nobody set. So setting one, or taking it out, runs no step
again; and with none set the graph is as if there were no gates.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from chainforge.outputs import write_text
from chainforge.project.claims import note
from chainforge.project.graph import GraphStep, dependencies, outputs

GATES = Path("data/gates")
OPEN = "open\n"


def gate_file(step: str) -> Path:
    """What a step waits for."""
    return GATES / step


def guarded_steps(graph: Mapping[str, GraphStep]) -> dict[Path, str]:
    """The steps that have a gate before them, whether it is set or not, by its file."""
    found = ((dep, step.name) for step in graph.values() for dep in dependencies(step))
    return {dep: name for dep, name in found if dep.parent == GATES}


def open_gates(graph: Mapping[str, GraphStep]) -> None:
    """Open every gate that no setting closes. The step `lock` does so, before DVC looks for the files."""
    files = guarded_steps(graph)
    closed = set(_made(graph.values()))
    for path in files.keys() - closed:
        if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != OPEN:
            write_text(path, OPEN)
    note(sorted(files))


def _made(steps: Iterable[GraphStep]) -> Iterable[Path]:
    return (path for step in steps if step.verb == "gate" for path in outputs(step))
