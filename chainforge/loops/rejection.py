"""Rejection sampling: many completions per prompt in, the ones worth training on out."""

from collections import Counter
from collections.abc import Iterable

from chainforge.algorithms.selection import DropReason, select
from chainforge.config.sample import SampleSettings
from chainforge.records import Example, Group


def accept(groups: Iterable[Group], settings: SampleSettings) -> tuple[list[Example], dict[str, int]]:
    """(accepted examples, counts): every completion is kept or dropped for exactly one reason."""
    reasons: Counter[str] = Counter()
    examples = []
    read = prompts = without = 0
    for group in groups:
        kept, dropped = choose(group, settings)
        reasons.update(dropped)
        read += len(group.completions)
        prompts += 1
        without += not kept
        for index in kept:
            completion = group.completions[index]
            examples.append(
                Example(group.prompt.id, group.prompt.messages, completion.text, completion.origin)
            )
    counts = {f"dropped/{reason}": count for reason, count in sorted(reasons.items())}
    return examples, {
        "prompts": prompts,
        "prompts_without": without,
        "read": read,
        "kept": len(examples),
        **counts,
    }


def choose(group: Group, settings: SampleSettings) -> tuple[list[int], dict[DropReason, int]]:
    """Places of the completions to keep, best first, and how many are dropped for each reason."""
    return select(
        [score.total for score in group.scores],
        [completion.text for completion in group.completions],
        min_reward=settings.min_reward,
        keep=settings.keep_per_prompt,
        policy=settings.policy,
    )
