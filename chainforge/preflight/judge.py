"""What the time and memory of a step say should be changed."""

import os

from chainforge.config.run import RunSettings
from chainforge.models.precision import FIX, slowness
from chainforge.preflight.estimate import Estimate, Finding

CLOSE = 0.9  # of the memory
OFTEN = 0.1  # of the time


def judge(estimate: Estimate, run: RunSettings, *, on_cpu: bool) -> None:
    """Add findings to an estimate."""
    if estimate.usable and estimate.memory > estimate.usable:
        estimate.findings.append(
            Finding(
                f"{_gb(estimate.memory)} do not fit into {_gb(estimate.usable)}",
                "set adapter to {kind: lora}; lower runtime.micro_batch_tokens or runtime.rollout_rows; or "
                "choose a smaller model",
                loss=1.0,
                stops=True,
            )
        )
    elif estimate.usable and estimate.memory > CLOSE * estimate.usable:
        problem = f"{_gb(estimate.memory)} of {_gb(estimate.usable)} of memory: it is close"
        estimate.findings.append(Finding(problem, "lower runtime.rollout_rows", loss=0.5))
    if on_cpu and (times := slowness(run.precision, "cpu")) > 1:
        problem = f"this processor emulates {run.precision}: {times:.0f} times as long as in float32"
        estimate.findings.append(Finding(problem, FIX, loss=1 - 1 / times))
    whole = estimate.cost.wall
    saved = estimate.parts.get("saved states")
    if saved and whole > 60 and saved.wall > OFTEN * whole:
        estimate.findings.append(
            Finding(
                f"{saved.wall / whole:.0%} of the time goes into saved states",
                "raise runtime.save_every_s",
                loss=saved.wall / whole,
            )
        )
    cores = os.cpu_count() or 1
    if on_cpu and whole > 600 and run.threads < cores:
        estimate.findings.append(
            Finding(
                f"it computes on {run.threads} of {cores} cores",
                "raise run.threads (another number of threads is another result)",
                loss=1 - run.threads / cores,
            )
        )


def ranked(estimates: list[Estimate], around: list[Finding]) -> list[tuple[str, Finding]]:
    """(step, finding), what stops first, then what loses the most seconds."""
    total = sum(estimate.cost.wall for estimate in estimates) or 1.0
    rows = [(1.0, "", finding) for finding in around]
    rows += [
        (finding.loss * estimate.cost.wall / total, estimate.step, finding)
        for estimate in estimates
        for finding in estimate.findings
    ]
    rows.sort(key=lambda row: (not row[2].stops, -row[0]))
    return [(step, finding) for _, step, finding in rows]


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
