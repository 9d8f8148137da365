"""Reward functions as their authors write them for TRL's GRPOTrainer. Nothing here knows ChainForge."""

import asyncio
import re
from itertools import pairwise


def extract_boxed(text):
    found = re.findall(r"\\boxed\{([^{}]*)\}", text)
    return found[-1].strip() if found else None


def accuracy_reward(completions: list[list[dict[str, str]]], solution: list[str], **kwargs):
    """1 if the boxed answer is that of the solution, 0 if not; None if the solution has none."""
    contents = [completion[0]["content"] for completion in completions]
    rewards = []
    for content, sol in zip(contents, solution, strict=True):
        gold = extract_boxed(sol)
        if gold is None:
            rewards.append(None)
            continue
        rewards.append(float(extract_boxed(content) == gold))
    return rewards


async def judge_reward(prompts, completions, trainer_state=None, log_metric=None, **kwargs):
    """Asks a judge about every answer at once."""

    async def ask(question, answer):
        await asyncio.sleep(0)
        return 1.0 if answer[-1]["content"] and question[-1]["role"] == "user" else 0.0

    scores = await asyncio.gather(*(ask(p, c) for p, c in zip(prompts, completions, strict=True)))
    if log_metric is not None:
        log_metric("judge/mean", sum(scores) / len(scores))
    return scores


class RepetitionPenalty:
    """Minus the share of word pairs that were said before; None for a text without a pair."""

    __name__ = "repetition_penalty"

    def __call__(self, prompts, completions, completion_ids, **kwargs):
        penalties = []
        for text in completions:
            words = text.lower().split()
            pairs = list(pairwise(words))
            penalties.append(len(set(pairs)) / len(pairs) - 1 if pairs else None)
        return penalties
