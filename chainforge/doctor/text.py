"""Findings for people, and for programs."""

from collections import Counter
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from chainforge.doctor.finding import Finding, Severity
from chainforge.doctor.runs import Run

WIDTH = 100


def as_text(runs: Sequence[Run], findings: Sequence[Finding]) -> str:
    """Every step that was looked at, below it what is wrong there, and how many of each kind at the end."""
    lines: list[str] = []
    told: set[tuple[str, ...]] = set()  # what to do about them is told once
    for run in runs:
        mine = [finding for finding in findings if finding.step == run.step]
        lines.append(f"{run.step}: {run.told}" + ("" if mine else "; nothing wrong found"))
        for finding in mine:
            advice = (finding.rule, *finding.sign.change)
            lines += paragraph(finding, again=advice in told)
            told.add(advice)
    return "\n".join([*lines, "", total(findings)])


def paragraph(finding: Finding, *, again: bool) -> list[str]:
    """What is wrong, the numbers, what to set, where to read on; the last two once."""
    sign = finding.sign
    told = [
        *filled(f"  {sign.severity}: ", sign.problem),
        *filled("      seen: ", sign.evidence),
    ]
    if again:
        return [*told, "      set:  as above"]
    for place, change in enumerate(sign.change):
        told += filled("      set:  " if place == 0 else "      or:   ", change)
    return [*told, f"      more: {finding.link}"]


def filled(head: str, text: str) -> list[str]:
    """A text after a head, the further lines below its beginning."""
    return wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)


def total(findings: Sequence[Finding]) -> str:
    """How many of each kind."""
    if not findings:
        return "Nothing wrong found."
    counts = Counter(finding.sign.severity for finding in findings)
    return ", ".join(f"{n} {kind}{'s' * (n != 1)}" for kind in Severity if (n := counts[kind])) + "."


def as_json(runs: Sequence[Run], findings: Sequence[Finding]) -> dict[str, Any]:
    """The same facts."""
    return {
        "steps": [{"step": run.step, "told": run.told} for run in runs],
        "findings": [
            {
                "step": finding.step,
                "rule": finding.rule,
                "severity": str(finding.sign.severity),
                "problem": finding.sign.problem,
                "evidence": finding.sign.evidence,
                "change": list(finding.sign.change),
                "docs": finding.link,
            }
            for finding in findings
        ],
    }
