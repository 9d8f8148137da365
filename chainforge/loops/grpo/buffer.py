"""The rollout under way, with what its updates gave so far: what a run needs to go on inside of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from chainforge.loops.grpo.rows import Row
from chainforge.models.batches import Tokens


@dataclass
class RolloutBuffer:
    """`number` counts rollouts from 1; 0 before the first. `drawn` prompts were used so far, and the rewards
    `applied` did so at least once."""

    number: int = 0
    rows: Sequence[Row] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    updates: list[dict[str, float]] = field(default_factory=list)
    drawn: int = 0
    applied: list[str] = field(default_factory=list)

    def fill(self, number: int, rows: Sequence[Row], metrics: dict[str, float], drawn: int) -> None:
        """The next rollout, of which no update is done."""
        self.number, self.rows, self.metrics, self.updates, self.drawn = number, rows, metrics, [], drawn

    def state_dict(self) -> dict[str, Any]:
        """Numbers, lists and mappings only."""
        rows = [asdict(row) for row in self.rows]
        return {
            "number": self.number,
            "rows": rows,
            "metrics": self.metrics,
            "updates": self.updates,
            "drawn": self.drawn,
            "applied": self.applied,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.number, self.metrics, self.updates = state["number"], state["metrics"], state["updates"]
        self.drawn, self.applied = state["drawn"], state["applied"]
        self.rows = [Row(**row | {"tokens": Tokens(**row["tokens"])}) for row in state["rows"]]
