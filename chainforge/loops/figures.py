"""The figures of one checkpoint on one bench, each a fraction from 0 to 1 with its 95% interval."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from chainforge.algorithms.statistics import doublings, mean_interval, pass_at_k
from chainforge.config.evaluate import EvaluateSettings
from chainforge.loops.votes import Reading, majority_passes
from chainforge.response import TagFormat

Row = Mapping[str, Any]  # one problem, as data/eval/CHECKPOINT/BENCH.jsonl has it


def figures(
    rows: Sequence[Row], settings: EvaluateSettings, response: TagFormat, read: Reading
) -> dict[str, float | None]:
    """Everything that is told of these answers; None where it is unknown. Intervals are over problems.

    `read` is how the deciding reward reads a summary: what is the same to it votes together for maj@k.
    """
    reward = settings.reward
    answers = [a for row in rows for a in row["samples"]]
    texts = [[a["text"] for a in row["samples"]] for row in rows]
    passed = [[passes(a, reward) for a in row["samples"]] for row in rows]
    mean, lo, hi = mean_interval([fmean(of_problem) for of_problem in passed])
    scores = {
        "greedy": [passes(row["greedy"], reward) for row in rows if row["greedy"]],
        "maj_at_k": [
            majority_passes(given, right, response, read) for given, right in zip(texts, passed, strict=True)
        ],
        "strict": [fmean(is_strict(a, reward, response) for a in row["samples"]) for row in rows],
        "lenient": [fmean(is_lenient(a, reward) for a in row["samples"]) for row in rows],
        "greedy_strict": [is_strict(row["greedy"], reward, response) for row in rows if row["greedy"]],
        "greedy_lenient": [is_lenient(row["greedy"], reward) for row in rows if row["greedy"]],
    }
    for k in doublings(min(map(len, passed)))[1:]:
        scores[f"pass_at_{k}"] = [pass_at_k(len(p), round(sum(p)), k) for p in passed]
    return {
        "n": len(rows),
        "k": settings.samples,
        "pass_at_1": mean,
        "ci95_lo": lo,
        "ci95_hi": hi,
        "format_rate": fmean(keeps_format(a["text"], response) for a in answers),
        "mean_tokens": fmean(a["tokens"] for a in answers),
        "truncated_rate": fmean(a["finish"] == "length" for a in answers),
        "ungraded_rate": fmean(a["rewards"][reward] is None for a in answers),
    } | {name: value for score, values in scores.items() for name, value in _told(score, values)}


def _told(score: str, values: Sequence[float]) -> Sequence[tuple[str, float | None]]:
    """A score with its interval, by the names of the metrics file."""
    told = mean_interval(values) if values else (None, None, None)
    return tuple(zip((score, f"{score}_ci95_lo", f"{score}_ci95_hi"), told, strict=True))


def keeps_format(text: str, response: TagFormat) -> bool:
    """Whether the text has both parts, and something in each."""
    parsed = response.parse(text)
    return parsed is not None and parsed.filled


def passes(a: Row, reward: str) -> float:
    """1.0 where the reward is full; `check_bench` made sure that it applies."""
    return float(a["rewards"][reward] == 1.0)


def is_strict(a: Row, reward: str, response: TagFormat) -> float:
    """1.0 where the answer is right and in the format."""
    return passes(a, reward) if keeps_format(a["text"], response) else 0.0


def is_lenient(a: Row, reward: str) -> float:
    """1.0 where the answer is right wherever it stands: outside of the format, what `lenient` says counts."""
    return max(passes(a, reward), float(a.get("lenient", 0.0)))
