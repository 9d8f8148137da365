"""Which of a prompt's traces to keep when there are more than wanted."""

from collections.abc import Sequence

from chainforge.config.filter import Choose


def choose(lengths: Sequence[int], keep: int, how: Choose) -> set[int]:
    """Places of those to keep. At equal length the earlier one goes first.

    "spread" takes evenly from the shortest to the longest; of those, one alone is the middle one.
    """
    by_length = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    if len(lengths) <= keep:
        return set(by_length)
    if how == "first":
        return set(range(keep))
    if how == "shortest":
        return set(by_length[:keep])
    last = len(lengths) - 1
    return {by_length[last // 2]} if keep == 1 else {by_length[i * last // (keep - 1)] for i in range(keep)}
