"""What the rules look at: one step as its files tell of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from chainforge.algorithms.statistics import Paired
from chainforge.config.evaluate import EvaluateSettings
from chainforge.config.filter import FilterSettings
from chainforge.config.grpo import GrpoSettings
from chainforge.config.sample import SampleSettings
from chainforge.config.sft import SftSettings
from chainforge.doctor.series import Series, series
from chainforge.report.evaluations import Curve, Funnel


@dataclass(frozen=True, slots=True)
class Keys:
    """Where settings stand in params.yaml: `sections` from general to special, with what each sets."""

    sections: tuple[tuple[str, frozenset[str]], ...]

    def __call__(self, setting: str) -> str:
        """The dotted key to change: of the last section that sets it, else of the most general one."""
        owners = [name for name, keys in self.sections if setting.partition(".")[0] in keys]
        return f"{owners[-1] if owners else self.sections[0][0]}.{setting}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A checkpoint less its parent on the same `n` problems of a bench."""

    checkpoint: str
    parent: str
    bench: str
    n: int
    paired: Paired

    @property
    def told(self) -> str:
        """In points, with its interval."""
        low, mean, high = (
            f"{100 * x:+.1f}" for x in (self.paired.lo, self.paired.mean_difference, self.paired.hi)
        )
        return f"{mean} points on {self.bench}, 95% interval {low} to {high}, {self.n:,} problems"


@dataclass(frozen=True, slots=True)
class Table:
    """The row per optimizer or RL step, in plots/ once it is done, and in logs/ before."""

    curve: Curve
    is_done: bool

    def __getitem__(self, column: str) -> Series:
        """A column; empty where there is none of that name."""
        columns = self.curve.columns
        return series(column, columns["step"], columns.get(column, (float("nan"),) * self.rows))

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.curve.columns["step"])


@dataclass(frozen=True, slots=True)
class GrpoRun:
    """`answers` is the reward that says right or wrong, where it is one of the step's; `held_out`, what its
    checkpoint does on held-out problems against the one that it started from."""

    step: str
    settings: GrpoSettings
    key: Keys
    table: Table
    answers: str | None
    is_exact: bool
    prompts: int | None = None
    watched: int | None = None
    held_out: tuple[Comparison, ...] = ()

    @property
    def truth(self) -> Series:
        """The best there is to say whether answers are right: a watching grader, else the reward that
        decides evaluations, else the whole reward."""
        found = (self.table["watch/grader"], self.table[f"rewards/{self.answers}/mean"])
        return next((s for s in found if s.has_trend), self.table["reward"])

    @property
    def told(self) -> str:
        """How far it is."""
        rows, steps = self.table.rows, self.settings.num_rl_steps
        return f"{rows:,} RL steps" if self.table.is_done else f"{rows:,} of {steps:,} RL steps, not done"


@dataclass(frozen=True, slots=True)
class SftRun:
    """SFT or distillation; `summary` is its metrics/STEP.json, empty while it runs."""

    step: str
    settings: SftSettings
    key: Keys
    table: Table
    summary: Mapping[str, float | None]

    @property
    def told(self) -> str:
        """How far it is."""
        return f"{self.table.rows:,} optimizer steps" + ("" if self.table.is_done else ", not done")


@dataclass(frozen=True, slots=True)
class SelectionRun:
    """A filter, or rejection sampling: what it read, dropped and kept."""

    step: str
    settings: FilterSettings | SampleSettings
    key: Keys
    funnel: Funnel

    @property
    def told(self) -> str:
        """How many it kept."""
        return f"{self.funnel.kept:,} of {self.funnel.read:,} kept"


@dataclass(frozen=True, slots=True)
class EvaluationRun:
    """One checkpoint on one bench."""

    step: str
    settings: EvaluateSettings
    key: Keys
    metrics: Mapping[str, float | None]
    comparison: Comparison | None = None

    @property
    def told(self) -> str:
        """Its accuracy."""
        right, n = self.metrics.get("pass_at_1"), self.metrics.get("n")
        return "no figures" if right is None or n is None else f"pass@1 {right:.1%} of {n:,.0f} problems"


Run = GrpoRun | SftRun | SelectionRun | EvaluationRun
