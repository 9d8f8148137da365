"""What a filter decided about each trace, in logs/: `metrics/STEP.json` has only how many."""

from collections.abc import Sequence
from pathlib import Path

from chainforge.filtering.funnel import Funnel
from chainforge.jsonl import write_rows
from chainforge.records import Trace


def decisions_file(logs: Path, name: str) -> Path:
    """Where those of a step are: a line per trace, in the order of its file of traces."""
    return logs / f"{name}.decisions.jsonl"


def write_decisions(traces: Sequence[Trace], funnel: Funnel, path: Path) -> None:
    """Each trace's prompt, and why it was dropped; null where it was kept."""
    write_rows(path, ({"prompt_id": t.prompt_id, "reason": funnel.reason_of(t)} for t in traces))
