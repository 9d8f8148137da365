"""Sample completions: prefill each prompt once for its group, decode, and let what waits take the place of
what has ended.

N completions, T their tokens, B rows being decoded.
"""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from chainforge.config.sampling import SamplingSettings
from chainforge.memory import enough_memory
from chainforge.records import Finish
from chainforge.rollout.decode_batch import DecodeBatch
from chainforge.rollout.draw import draw, uniform_table
from chainforge.rollout.engine import Request, Sampled

LOWER = "lower runtime.rollout_rows, or max_new_tokens of this step; or choose a smaller model"
TURNOVER = 0.125  # ended rows leave when they are this share of the batch


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
) -> list[list[Sampled]]:
    """One list of completions per request, in the order of its seeds; at most `max_rows` at a time.

    Any of `eos_ids` ends a completion. It depends on its prompt, its seed and the weights, not on what else
    is in the batch or in which order (but for rounding: a float32 difference in the logits of about 1e-6).
    """
    if not requests:
        return []
    limit, device = settings.max_new_tokens, model.device
    uniform_NT = uniform_table([seed for r in requests for seed in r.seeds], limit, device)
    count = len(uniform_NT)
    tokens_NT = torch.zeros(count, limit, dtype=torch.long, device=device)
    logp_NT = torch.zeros(count, limit, device=device)
    length_N = torch.full((count,), limit, device=device)
    eos_E = torch.tensor(list(eos_ids), dtype=torch.long, device=device)

    waiting = _queue(requests, max_rows)
    width = max(len(group.prompt_ids) for group in waiting)
    batch = DecodeBatch(model, rows=min(max_rows, count), prompt_width=width)
    running_B = torch.ones(0, dtype=torch.bool, device=device)
    while len(batch) or waiting:
        if groups := _that_fit(waiting, max_rows - len(batch)):
            batch.admit([g.prompt_ids for g in groups], [g.numbers for g in groups])
            running_B = torch.cat([running_B, running_B.new_ones(len(batch) - len(running_B))])
        number_B, taken_B = batch.number_B, batch.taken_B
        token_B, logp_B = draw(
            batch.logits_BV,
            uniform_NT[number_B.to(uniform_NT.device), taken_B.to(uniform_NT.device)],
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
        )
        tokens_NT[number_B, taken_B], logp_NT[number_B, taken_B] = token_B, logp_B
        stopped_B = running_B & (token_B[:, None] == eos_E).any(-1)
        length_N[number_B[stopped_B]] = taken_B[stopped_B] + 1
        at_limit_B = taken_B == limit - 1
        running_B &= ~(stopped_B | at_limit_B)
        ended = len(batch) - int(running_B.sum())
        if ended >= TURNOVER * len(batch) or at_limit_B.any():
            order_B = batch.keep(running_B)
            token_B, running_B = token_B[order_B], running_B[order_B]
        if len(batch):
            batch.advance(token_B)
    return _collect(requests, tokens_NT, logp_NT, length_N, eos_ids)


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


def _collect(
    requests: Sequence[Request],
    tokens_NT: Tensor,
    logp_NT: Tensor,
    length_N: Tensor,
    eos_ids: Collection[int],
) -> list[list[Sampled]]:
    rows = iter(zip(tokens_NT.tolist(), logp_NT.tolist(), length_N.tolist(), strict=True))
    results = []
    for request in requests:
        completions = []
        for _ in request.seeds:
            tokens, logps, length = next(rows)
            finish: Finish = "stop" if tokens[length - 1] in eos_ids else "length"
            completions.append(Sampled(tuple(tokens[:length]), tuple(logps[:length]), finish))
        results.append(completions)
    return results
