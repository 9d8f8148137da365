"""What a rule says: how bad it is, what is wrong, the numbers, and the setting to change."""

from dataclasses import dataclass
from enum import StrEnum

PAGE = "docs/doctor.md"


class Severity(StrEnum):
    """How bad it is: an error spoils the result, a warning may, a note is good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Sign:
    """What one rule saw in one step. `change` has one sentence per thing to do, the likeliest first."""

    severity: Severity
    problem: str
    evidence: str
    change: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """A sign with the rule that saw it and the step where."""

    step: str
    rule: str
    sign: Sign

    @property
    def link(self) -> str:
        """The section of the documentation about the rule."""
        return f"{PAGE}#{self.rule}"


def error(problem: str, evidence: str, *change: str) -> Sign:
    """A sign that the result is spoilt."""
    return Sign(Severity.ERROR, problem, evidence, change)


def warning(problem: str, evidence: str, *change: str) -> Sign:
    """A sign that it may be."""
    return Sign(Severity.WARNING, problem, evidence, change)


def note(problem: str, evidence: str, *change: str) -> Sign:
    """Something that is good to know."""
    return Sign(Severity.NOTE, problem, evidence, change)
