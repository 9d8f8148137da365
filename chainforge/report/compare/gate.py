"""Whether a checkpoint may go on: its paired difference to its parent on the guard benches."""

from collections.abc import Sequence
from pathlib import Path

from chainforge.algorithms.statistics import SIGNIFICANT, Paired
from chainforge.config.gate import GateSettings
from chainforge.errors import ChainForgeError
from chainforge.jsonl import read_rows
from chainforge.report.compare.problems import Answers, Difference, compare_cell
from chainforge.report.compare.text import points
from chainforge.report.evaluations import rows_file
from chainforge.report.table import percent


def compare_on_guards(root: Path, settings: GateSettings) -> list[Difference]:
    """The checkpoint less its parent on each guard bench. Raises ChainForgeError without common problems."""

    def read(checkpoint: str, bench: str) -> Answers:
        path = rows_file(root, checkpoint, bench)
        return Answers((row for _, row in read_rows(path)), settings.grader, str(path))

    found = []
    for bench in settings.benches:
        parent, mine = (read(checkpoint, bench) for checkpoint in (settings.parent, settings.checkpoint))
        found.append(compare_cell(settings.checkpoint, bench, parent, mine))
        if found[-1].paired is None:
            raise ChainForgeError(
                f"{settings.checkpoint} and {settings.parent} have no problem of {bench} in common",
                "evaluate both on the same held-out prompts",
            )
    return found


def is_worse(paired: Paired, tolerance: float = 0.0) -> bool:
    """Whether it is significantly worse, and by more than is tolerated."""
    return paired.p_value < SIGNIFICANT and paired.hi < -tolerance


def figures_of_gate(found: Sequence[Difference]) -> dict[str, float]:
    """What metrics/gate/STEP.json has: the numbers of each bench."""
    figures: dict[str, float] = {}
    for cell in found:
        assert cell.paired is not None
        figures |= {
            f"{cell.bench}/n": cell.n,
            f"{cell.bench}/difference": cell.paired.mean_difference,
            f"{cell.bench}/ci95_lo": cell.paired.lo,
            f"{cell.bench}/ci95_hi": cell.paired.hi,
            f"{cell.bench}/p_value": cell.paired.p_value,
        }
    return figures


def pass_or_raise(step: str, found: Sequence[Difference], settings: GateSettings) -> str:
    """A line for who watches. Raises ChainForgeError where the checkpoint is worse than its parent."""
    told = {cell.bench: _told(cell) for cell in found}
    pair = f"{settings.checkpoint} and its parent {settings.parent}"
    worse = [cell.bench for cell in found if cell.paired and is_worse(cell.paired, settings.tolerance)]
    if not worse:
        return f"{pair}, by {settings.grader}: {'; '.join(told.values())}"
    allowed = f", and {100 * settings.tolerance:g} points are tolerated" if settings.tolerance else ""
    raise ChainForgeError(
        f"{settings.checkpoint} is worse than its parent {settings.parent}, by {settings.grader}: "
        f"{'; '.join(told[bench] for bench in worse)}{allowed}. {step} does not start",
        f"train it with other settings; or go on anyway: raise gates.{step}.tolerance, or take gates.{step} "
        f"out of params.yaml, then dvc repro (once: dvc exp run -S '~gates.{step}'). What it wrote is in "
        f"{' and '.join(str(rows_file(Path(), settings.checkpoint, bench)) for bench in worse)}",
    )


def _told(cell: Difference) -> str:
    """general: -12.3 points [-15.1, -9.5], from 41.2% to 28.9% on the same 1,000 problems."""
    assert cell.paired is not None
    interval = f"[{points(cell.paired.lo)}, {points(cell.paired.hi)}]"
    return (
        f"{cell.bench} {points(cell.paired.mean_difference)} points {interval}, "
        f"from {percent(cell.pass_a)} to {percent(cell.pass_b)} on the same {cell.n:,} problems"
    )
