"""One column of a step's table: what it is now, and whether it has moved by more than its own noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from chainforge.algorithms.over_seeds import student_t_quantile

FEW = 3  # rows: a level is not told from fewer
TREND = 10  # rows: a change is not told from fewer
MANY_ROWS = 200  # from here on Student's t is as good as normal
SHARE = 5  # the first and the last fifth of the rows are compared
SURE = 3.0  # standard errors, where the noise is known: by chance 3 in 1,000 are larger
SURE_SHARE = 0.99865  # of a normal variable lies below 3 standard errors


@dataclass(frozen=True, slots=True)
class Series:
    """The rows that have a value, in the order of the steps."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def has_level(self) -> bool:
        """Whether there are enough rows to say what it is."""
        return len(self.values) >= FEW

    @property
    def has_trend(self) -> bool:
        """Whether there are enough rows to say that it moved."""
        return len(self.values) >= TREND

    @property
    def window(self) -> int:
        """How many rows are its beginning, and how many its end."""
        return max(FEW, len(self.values) // SHARE)

    @property
    def early(self) -> float:
        """The mean of the first rows."""
        return fmean(self.values[: self.window])

    @property
    def late(self) -> float:
        """The mean of the last rows."""
        return fmean(self.values[-self.window :])

    @property
    def usual(self) -> float:
        """The median of the last rows: one odd row does not move it."""
        return median(self.values[-self.window :])

    @property
    def highest(self) -> int:
        """The step of the highest value."""
        return self.steps[self.values.index(max(self.values))]

    @property
    def last_steps(self) -> str:
        """Which steps the last rows are."""
        return f"steps {self.steps[-self.window :][0]}–{self.steps[-1]}"

    @property
    def first_steps(self) -> str:
        """Which steps the first rows are."""
        return f"steps {self.steps[0]}–{self.steps[: self.window][-1]}"

    @property
    def noise(self) -> float:
        """The standard deviation of a row, trend aside: from differences of neighbours.

        Source: von Neumann et al., The mean square successive difference, Ann. Math. Stat. 12, 1941.
        """
        squares = math.fsum((b - a) ** 2 for a, b in zip(self.values, self.values[1:], strict=False))
        return math.sqrt(squares / 2 / (len(self.values) - 1))

    @property
    def moved(self) -> float:
        """How far the end is from the beginning, in standard errors; 0 where there are too few rows."""
        return self._errors(self.values[: self.window])

    @property
    def sure(self) -> float:
        """How many standard errors are as rare as 3 of a normal variable.

        More where the noise itself is known from few rows: as an estimate, it has about 2n / 3 degrees of
        freedom, since its variance is 3 / n of its square, and that of the usual estimate 2 / df.
        """
        return student_t_quantile(SURE_SHARE, max(1, min(2 * len(self.values) // 3, MANY_ROWS)))

    @property
    def fell(self) -> bool:
        """Whether the end is lower than the beginning, or than the very first row: what breaks within a few
        steps has no beginning but that."""
        return min(self.moved, self._errors(self.values[:1])) <= -self.sure

    @property
    def rose(self) -> bool:
        """Whether the end is higher than the beginning."""
        return self.moved >= self.sure

    def _errors(self, before: Sequence[float]) -> float:
        if not self.has_trend:
            return 0.0
        difference = self.late - fmean(before)
        error = self.noise * math.sqrt(1 / len(before) + 1 / self.window)
        if error == 0:
            return math.copysign(math.inf, difference) if difference else 0.0
        return difference / error


def series(name: str, steps: Sequence[float], values: Sequence[float]) -> Series:
    """A column without its empty cells."""
    found = [(int(s), v) for s, v in zip(steps, values, strict=True) if not math.isnan(v)]
    return Series(name, tuple(s for s, _ in found), tuple(v for _, v in found))
