"""Whether two settings differ, judged over seeds: a run of another seed is another draw of everything.

Seeds are the sample. Problems of one seed are a cluster, and one that several seeds ask is one problem.
With two to ten seeds, a bootstrap over seeds and the Wald interval of a mixed model are too narrow: both take
the spread of a few seeds for known, and statsmodels has no correction for that. So the interval is Student's,
with seeds - 1 degrees of freedom.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from chainforge.algorithms.statistics import wilson_interval
from chainforge.errors import ChainForgeError

POWER = 0.8  # how often as many seeds as `seeds_needed` find a difference of this size
MOST_SEEDS = 1000


@dataclass(frozen=True, slots=True)
class SeedDifference:
    """The mean difference over seeds with its 95% interval and two-sided p-value.

    `seed_share` is the share of the mean's variance that seeds have beyond what their problems explain.
    `seeds_needed` is None where no number of seeds would do: the difference is 0, or the problems that seeds
    share are too few.
    """

    mean: float
    lo: float
    hi: float
    p_value: float
    per_seed: tuple[float, ...]
    seed_share: float
    seeds_needed: int | None

    @property
    def clear(self) -> bool:
        """Whether the 95% interval excludes 0."""
        return self.lo > 0 or self.hi < 0


def difference_over_seeds(per_seed: Sequence[Mapping[str, float]]) -> SeedDifference:
    """From the differences of each seed's problems, by problem, each -1…1.

    The variance of the mean has two parts. *Between seeds*: the variance of the seeds' means over their
    number. It holds the noise of problems that one seed alone asks, and is never taken for less than that
    noise: seeds that agree by luck prove nothing. What it has beyond the noise, seeds have. *Shared*:
    the mean covariance of two seeds through the problems that both ask, which the spread between seeds cannot
    show. Sources: two-way clustering, Cameron, Gelbach and Miller, Journal of Business & Economic Statistics
    29, 2011; degrees of freedom, Donald and Lang, Review of Economics and Statistics 89, 2007.
    """
    seeds = len(per_seed)
    if seeds < 2 or not all(per_seed):
        raise ChainForgeError(
            f"{seeds} seed{'s' * (seeds != 1)} cannot show how much seeds differ",
            "compare at least two seeds, each with a problem",
        )
    means = [math.fsum(problems.values()) / len(problems) for problems in per_seed]
    mean = math.fsum(means) / seeds
    shared = max(0.0, _mean_covariance(per_seed, means))
    of_means = math.fsum(variance_of_mean(list(problems.values())) for problems in per_seed) / seeds
    noise = max(0.0, of_means - shared)
    one_seed = max(math.fsum((value - mean) ** 2 for value in means) / (seeds - 1), noise)
    variance = one_seed / seeds + shared
    t = abs(mean) / math.sqrt(variance)
    reach = student_t_quantile(0.975, seeds - 1) * math.sqrt(variance)
    return SeedDifference(
        mean,
        max(mean - reach, -1.0),
        min(mean + reach, 1.0),
        1.0 - student_t_within(t, seeds - 1),
        tuple(means),
        (one_seed - noise) / seeds / variance,
        _seeds_needed(abs(mean), one_seed, shared),
    )


def variance_of_mean(values: Sequence[float]) -> float:
    """Of the mean of differences -1…1; without any spread, as `paired_difference` has it."""
    n = len(values)
    mean = math.fsum(values) / n
    squares = math.fsum((value - mean) ** 2 for value in values)
    if squares > 1e-12 * n:
        return squares / (n - 1) / n
    centre = n * mean / (n + 2)
    return ((n * mean**2 + 1) / (n + 2) - centre**2) / (n + 2)


def mean_over_seeds(values: Sequence[float], problems: int) -> tuple[float, float, float]:
    """Mean and Student's 95% interval of a rate 0…1 per seed; of one seed, the interval is all there is.

    It is never narrower than Wilson's for as many problems as all seeds have: seeds that agree prove little.
    """
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0, 1.0
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    reach = student_t_quantile(0.975, len(values) - 1) * spread
    lo, hi = wilson_interval(mean * problems, problems)
    return mean, max(min(mean - reach, lo), 0.0), min(max(mean + reach, hi), 1.0)


def student_t_within(t: float, df: int) -> float:
    """The chance that Student's t lies between -t and t. Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = df % 2
    term = cosine if odd else 1.0
    terms = []
    for k in range(1 + odd, df, 2):
        terms.append(term)
        term *= cosine**2 * k / (k + 1)
    total = math.fsum(terms) * sine
    return (angle + total) * 2 / math.pi if odd else total


@functools.cache
def student_t_quantile(share: float, df: int) -> float:
    """The t below which that share, 0.5…1, of Student's t lies."""
    lo, hi = 0.0, 1.0
    while student_t_within(hi, df) < 2 * share - 1:
        lo, hi = hi, 2 * hi
    for _ in range(60):
        middle = (lo + hi) / 2
        lo, hi = (middle, hi) if student_t_within(middle, df) < 2 * share - 1 else (lo, middle)
    return hi


def _mean_covariance(per_seed: Sequence[Mapping[str, float]], means: Sequence[float]) -> float:
    """Of the means of two seeds, through the problems that both ask."""
    pairs = list(combinations(zip(per_seed, means, strict=True), 2))
    found = [
        math.fsum((a[p] - mean_a) * (b[p] - mean_b) for p in a.keys() & b.keys()) / len(a) / len(b)
        for (a, mean_a), (b, mean_b) in pairs
    ]
    return math.fsum(found) / len(found)


def _seeds_needed(difference: float, one_seed: float, shared: float) -> int | None:
    """The fewest seeds whose interval would exclude 0 in four of five cases, were the difference this one."""

    def enough(seeds: int) -> bool:
        reach = student_t_quantile(0.975, seeds - 1) + student_t_quantile(POWER, seeds - 1)
        return reach * math.sqrt(one_seed / seeds + shared) <= difference

    if not difference or not enough(MOST_SEEDS):
        return None
    lo, hi = 1, MOST_SEEDS
    while hi - lo > 1:
        middle = (lo + hi) // 2
        lo, hi = (lo, middle) if enough(middle) else (middle, hi)
    return hi
