"""What the watch of a GRPO step saw: its rewards beside the other grader, and what is rewarded yet wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from chainforge.report.evaluations import Curve
from chainforge.report.figures import BLUE, GREEN, ORANGE, Line, line
from chainforge.report.shape import read_shaped

REWARD, GRADER = "watch/reward", "watch/grader"  # columns of plots/STEP.csv


class Wrong(BaseModel):
    """A completion that the other grader calls wrong."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    prompt_id: str
    prompt: str
    answer: str | None
    completion: str
    reward: float
    rewards: dict[str, float | None]


class Summary(BaseModel):
    """metrics/STEP.json, as much of it as is read here."""

    watch: list[Wrong] | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """One GRPO step that watched; `wrong` has the highest reward first, and is None where nobody wrote it."""

    step: str
    curve: Curve
    wrong: tuple[Wrong, ...] | None

    @property
    def lines(self) -> list[Line]:
        """The curves of its panel."""
        return [
            line(self.curve, "reward", "reward, training", BLUE),
            line(self.curve, REWARD, "reward, held out", GREEN, smooth=False),
            line(self.curve, GRADER, "right, held out", ORANGE, smooth=False),
        ]


def read_watched(root: Path, curves: Mapping[str, Curve]) -> tuple[Watched, ...]:
    """The GRPO steps of `curves` that watched. Raises ChainForgeError where a list is not of that shape."""
    found = {name: curve for name, curve in curves.items() if curve.has(REWARD) and curve.has(GRADER)}
    return tuple(
        Watched(name, curve, read_wrong(root / "metrics" / f"{name}.json")) for name, curve in found.items()
    )


def read_wrong(path: Path) -> tuple[Wrong, ...] | None:
    if not path.is_file():
        return None
    summary: Summary = read_shaped(Summary, path, "run the step that writes it again")
    return None if summary.watch is None else tuple(summary.watch)
