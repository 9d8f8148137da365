"""Sample completions: prefill each prompt once for its group, decode, and let what waits take the place of
what has ended.
"""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedModel

from chainforge.config.sampling import SamplingSettings
from chainforge.memory import enough_memory
from chainforge.rollout.block_decode import BlockBatch
from chainforge.rollout.completions import Completions
from chainforge.rollout.decode_batch import DecodeBatch
from chainforge.rollout.engine import Request, Sampled

LOWER = "lower runtime.rollout_rows, or max_new_tokens of this step; or choose a smaller model"
BLOCK = {"cuda": 32}  # tokens by type of device; a CPU is quicker one at a time


@dataclass(frozen=True, slots=True)
class _Group:
    """A prompt that waits, and the numbers of its completions."""

    prompt_ids: Sequence[int]
    numbers: Sequence[int]


@enough_memory("sampling", LOWER)
@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    requests: Sequence[Request],
    settings: SamplingSettings,
    *,
    eos_ids: Collection[int],
    max_rows: int,
    block: int | None = None,
) -> list[list[Sampled]]:
    """One list of completions per request, in the order of its seeds; at most `max_rows` at a time.

    Any of `eos_ids` ends a completion. It depends on its prompt, its seed and the weights, not on what else
    is in the batch or in which order (but for rounding: a float32 difference in the logits of about 1e-6).
    `block`: decode in fixed shapes, and look only after this many tokens which rows have ended. By default a
    GPU does so; on a CPU looking costs nothing.
    """
    if not any(request.seeds for request in requests):
        return [[] for _ in requests]
    waiting = _queue(requests, max_rows)
    completions = Completions(requests, settings, eos_ids, model.device)
    rows, width = min(max_rows, completions.nobody), max(len(group.prompt_ids) for group in waiting)
    block = block or BLOCK.get(model.device.type)
    kind = partial(BlockBatch, block=block) if block else DecodeBatch
    with in_any_order() if block else nullcontext():
        batch = kind(model, completions, rows, width)
        while len(batch) or waiting:
            if groups := _that_fit(waiting, max_rows - len(batch)):
                batch.admit([g.prompt_ids for g in groups], [g.numbers for g in groups])
            batch.decode()
        return completions.collect()


@contextmanager
def in_any_order() -> Iterator[None]:
    """Without a GPU's deterministic kernels, which sort the places of each write, and copy the whole cache.

    The places of a write are different here, but for those of idle rows, which nobody reads.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)


def _queue(requests: Sequence[Request], max_rows: int) -> deque[_Group]:
    """All completions, prompts of like length together; a group larger than the batch comes in parts."""
    groups, first = [], 0
    for request in requests:
        last = first + len(request.seeds)
        groups += [
            _Group(request.prompt_ids, range(start, min(start + max_rows, last)))
            for start in range(first, last, max_rows)
        ]
        first = last
    return deque(sorted(groups, key=lambda group: len(group.prompt_ids)))


def _that_fit(waiting: deque[_Group], rows: int) -> list[_Group]:
    """Take the next groups off the queue, as many as there are rows for."""
    groups = []
    while waiting and len(waiting[0].numbers) <= rows:
        groups.append(waiting.popleft())
        rows -= len(groups[-1].numbers)
    return groups
