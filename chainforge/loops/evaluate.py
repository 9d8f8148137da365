"""Evaluate one checkpoint on one bench: outcomes per problem, and the figures with their intervals."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from chainforge.algorithms.statistics import mean_interval
from chainforge.config.evaluate import EvaluateSettings
from chainforge.errors import ChainForgeError
from chainforge.loops.votes import Reading, majority_passes
from chainforge.records import Completion, Group, Score
from chainforge.response import TagFormat

Row = dict[str, Any]


def check_bench(groups: Sequence[Group], settings: EvaluateSettings, bench: str) -> None:
    """Raise ChainForgeError unless the deciding reward applies to every problem."""
    for group in groups:
        score = group.scores[0]
        if score.parts[settings.reward] is None and settings.reward not in score.failed:
            raise ChainForgeError(
                f"bench {bench!r}: the reward {settings.reward!r} does not apply to {group.prompt.id!r}",
                "give that prompt an answer, or choose another evaluate.reward",
            )


def outcome(sampled: Group, greedy: Group | None) -> Row:
    """One problem with every answer to it, as data/eval/CHECKPOINT/BENCH.jsonl holds it."""
    prompt = sampled.prompt
    return {
        "prompt_id": prompt.id,
        "source": prompt.source,
        "question": prompt.messages[-1]["content"],
        **({"messages": list(prompt.messages)} if len(prompt.messages) > 1 else {}),
        "answer": prompt.answer,
        "samples": [answer(c, s) for c, s in zip(sampled.completions, sampled.scores, strict=True)],
        "greedy": answer(greedy.completions[0], greedy.scores[0]) if greedy else None,
    }


def answer(completion: Completion, score: Score) -> Row:
    """One completion with the rewards it got."""
    return {
        "text": completion.text,
        "finish": completion.finish,
        "tokens": len(completion.token_ids),
        "rewards": dict(score.parts),
    }


def figures(
    rows: Sequence[Row], settings: EvaluateSettings, response: TagFormat, read: Reading
) -> dict[str, float | None]:
    """Fractions from 0 to 1 with 95% intervals over problems; None where unknown.

    `read` is how the deciding reward reads a summary: what is the same to it votes together for maj@k.
    """
    answers = [a for row in rows for a in row["samples"]]
    texts = [[a["text"] for a in row["samples"]] for row in rows]
    passed = [[passes(a, settings.reward) for a in row["samples"]] for row in rows]
    mean, lo, hi = mean_interval([fmean(of_problem) for of_problem in passed])
    greedy = [passes(row["greedy"], settings.reward) for row in rows if row["greedy"]]
    greedy_mean, greedy_lo, greedy_hi = mean_interval(greedy) if greedy else (None, None, None)
    return {
        "n": len(rows),
        "k": settings.samples,
        "pass_at_1": mean,
        "ci95_lo": lo,
        "ci95_hi": hi,
        "greedy": greedy_mean,
        "greedy_ci95_lo": greedy_lo,
        "greedy_ci95_hi": greedy_hi,
        "maj_at_k": fmean(
            majority_passes(given, right, response, read) for given, right in zip(texts, passed, strict=True)
        ),
        "format_rate": fmean(keeps_format(a["text"], response) for a in answers),
        "mean_tokens": fmean(a["tokens"] for a in answers),
        "truncated_rate": fmean(a["finish"] == "length" for a in answers),
    }


def keeps_format(text: str, response: TagFormat) -> bool:
    """Whether the text has both parts, and something in each."""
    parsed = response.parse(text)
    return parsed is not None and parsed.filled


def passes(a: Mapping[str, Any], reward: str) -> float:
    """1.0 where the reward is full; `check_bench` made sure that it applies."""
    return float(a["rewards"][reward] == 1.0)
