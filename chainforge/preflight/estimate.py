"""What is found out about one step."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from chainforge.preflight.cost import Cost


@dataclass(frozen=True)
class Rate:
    """A share of a sample, with its 95% interval over `n` problems or examples."""

    name: str
    n: int
    mean: float
    lo: float
    hi: float


@dataclass(frozen=True)
class Finding:
    """What to change. `loss` is the share of the step's work that is lost without it, 0 to 1; a problem that
    `stops` comes first, and makes the command fail."""

    problem: str
    fix: str
    loss: float = 0.0
    stops: bool = False


@dataclass
class Estimate:
    """Of one step. `parts` add up to its time; `memory` is in bytes, `usable` what there is of it."""

    step: str
    model: str = ""
    parts: dict[str, Cost] = field(default_factory=dict)
    memory: float = 0.0
    usable: float = 0.0
    checkpoint: float = 0.0
    saves: float = 0.0
    tokens_per_s: dict[str, float] = field(default_factory=dict)
    rates: list[Rate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    like: str | None = None  # the step that was tried in its place
    waits_for: str | None = None
    failed: bool = False

    @property
    def cost(self) -> Cost:
        """Of the whole step."""
        whole = Cost()
        for part in self.parts.values():
            whole = whole.plus(part)
        return whole

    @property
    def stops(self) -> bool:
        """Whether it cannot work."""
        return any(finding.stops for finding in self.findings)

    def as_json(self) -> Mapping[str, Any]:
        """Everything, in seconds and bytes."""
        told = asdict(self)
        told["parts"] = {name: cost._asdict() for name, cost in self.parts.items()}
        return told | {"cpu_s": self.cost.cpu, "wall_s": self.cost.wall}


def failed(step: str, problem: str, fix: str) -> Estimate:
    """Of a step whose try ended in a problem."""
    return Estimate(step, failed=True, findings=[Finding(problem, fix, loss=1.0, stops=True)])
