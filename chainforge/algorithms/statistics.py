"""What an evaluation may claim: rates, their 95% intervals, and whether two checkpoints differ.

Problems are the sample. The completions of one are a cluster: more of them never pass for more problems.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from chainforge.errors import ChainForgeError

Z = 1.959963984540054  # standard normal, two-sided 95%
SIGNIFICANT = 0.05  # a difference with a smaller p-value is called one


@dataclass(frozen=True, slots=True)
class Paired:
    """How much higher `a` scores than `b` on the same problems, its 95% interval and two-sided p-value."""

    mean_difference: float
    lo: float
    hi: float
    p_value: float


def wilson_interval(successes: float, n: float) -> tuple[float, float]:
    """The 95% interval of a rate. n may be an effective sample size. E. B. Wilson, JASA 22, 1927."""
    if n <= 0 or not 0 <= successes <= n:
        raise ChainForgeError(f"no interval for {successes} of {n}", "evaluate at least one problem")
    rate = successes / n
    centre = (rate + Z**2 / (2 * n)) / (1 + Z**2 / n)
    reach = Z / (1 + Z**2 / n) * math.sqrt(rate * (1 - rate) / n + Z**2 / (4 * n**2))
    return min(max(centre - reach, 0.0), rate), max(min(centre + reach, 1.0), rate)


def mean_interval(values_per_problem: Sequence[float]) -> tuple[float, float, float]:
    """Mean, lower and upper 95% limit of per-problem rates, each 0…1, such as pass@1 over k samples.

    Wilson's interval for as many yes-or-no problems as would make the mean as uncertain as the spread between
    problems does: n of them if every value is 0 or 1, more if values lie between. One further problem of the
    largest possible spread is assumed, so that the interval has a width even where all values are equal. With
    many problems it is the clustered normal interval, mean ± 1.96·std/√n.
    Source: effective sample size as in Korn and Graubard, Survey Methodology 24, 1998.
    """
    n = len(values_per_problem)
    if n == 0 or not all(0 <= value <= 1 for value in values_per_problem):
        raise ChainForgeError(
            "an interval needs at least one value, all of 0…1", "evaluate at least one problem"
        )
    mean = math.fsum(values_per_problem) / n
    largest = mean * (1 - mean)
    variance = (math.fsum((value - mean) ** 2 for value in values_per_problem) + largest) / (n + 1)
    effective_n = n * max(largest / variance, 1.0) if variance > 0 else n
    return mean, *wilson_interval(mean * effective_n, effective_n)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The chance that at least one of `k` samples is right, estimated without bias from `samples` of which
    `right` are: the share of all subsets of k that hold a right one.

    Source: Chen et al., Evaluating Large Language Models Trained on Code, 2021, equation 1.
    """
    if not (0 <= right <= samples and 1 <= k <= samples):
        raise ChainForgeError(
            f"no pass@{k} from {right} right ones of {samples} samples",
            "k is at least 1, and at most the samples",
        )
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def doublings(samples: int) -> list[int]:
    """1, 2, 4, … and the number of samples itself: the k for which pass@k is told."""
    return [*(1 << i for i in range((samples - 1).bit_length())), samples]


def maj_at_k(answers: Sequence[str | None]) -> str | None:
    """The most common answer, the one seen first among equals; None only if there is none."""
    counts = Counter(answer for answer in answers if answer is not None)
    return max(counts, key=lambda answer: counts[answer], default=None)


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Paired:
    """Does `a` score higher than `b`? Per-problem rates, each 0…1, of the same problems in the same order.

    Normal approximation over problems. Where every problem differs by the same amount there is no spread to
    go by: two further problems are assumed then, with differences 1, -1, 0 and 0 of half weight each (Agresti
    and Min, Statistics in Medicine 24, 2005). The p-value is never below 2^(1-m), the smallest that flipping
    the signs of m non-zero differences can give.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    n = len(differences)
    if n == 0:
        raise ChainForgeError(
            "there is nothing to compare", "evaluate both checkpoints on at least one problem"
        )
    mean = math.fsum(differences) / n
    squares = math.fsum((difference - mean) ** 2 for difference in differences)
    if squares > 1e-12 * n:
        centre, error = mean, math.sqrt(squares / (n - 1) / n)
        p_value = math.erfc(abs(mean) / error / math.sqrt(2))
    else:
        centre = n * mean / (n + 2)
        error = math.sqrt(((n * mean**2 + 1) / (n + 2) - centre**2) / (n + 2))
        p_value = 0.0
    smallest = min(1.0, 2.0 ** (1 - sum(difference != 0 for difference in differences)))
    lo, hi = max(centre - Z * error, -1.0), min(centre + Z * error, 1.0)
    return Paired(mean, min(lo, mean), max(hi, mean), max(p_value, smallest))
