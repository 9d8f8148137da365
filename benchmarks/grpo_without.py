"""ChainForge's step without one of its techniques: each as it would be done without a thought for speed.

`grpo_chainforge.py --without NAME` takes it away before the first step; `techniques.py` takes each in turn.
"""

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import grpo_chainforge
import torch
from grpo_work import ROWS_AT_ONCE
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from chainforge.learner import forward_passes, local_learner, micro_batch_size
from chainforge.learner.optimizer import ScheduledOptimizer
from chainforge.models import attention, decoder, policy_model
from chainforge.rollout import cache, completions, decode_batch, local_engine, sampler
from chainforge.rollout.draw import truncate


def prompts_once_in_training() -> None:
    """Every completion's pass computes its prompt."""
    forward_passes.can_share = lambda *_: False


def micro_batches_by_padding() -> None:
    """A micro-batch is filled up, whatever its padding."""
    forward_passes.MOST_PADDING = math.inf


def small_micro_batches() -> None:
    """As many tokens as would fit: 16,384."""
    micro_batch_size.MOST_ON_CPU, micro_batch_size.CPU_BYTES = 16_384, 2**40


def head_in_chunks() -> None:
    """All logits at once, kept for the backward pass."""

    def whole(
        head: torch.nn.Linear,
        hidden_MH: Tensor,
        targets_M: Tensor,
        *,
        temperature: float,
        entropy: bool,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        logp_MV = (head(hidden_MH).float() / temperature).log_softmax(-1)
        with torch.no_grad():
            entropy_M = -(logp_MV.exp() * logp_MV).sum(-1) if entropy else logp_MV[:0, 0]
        return logp_MV.gather(-1, targets_M[:, None]).squeeze(-1), entropy_M

    local_learner.LARGE = 2**60
    policy_model.token_logprobs = whole


def attention_for_short_rows() -> None:
    """PyTorch's fused attention in training."""
    attention.LONGEST = 0


def freed_memory_used_again() -> None:
    """Large tensors go back to the system when they are freed, as ever where `make` did not start this."""
    if os.environ.pop("GLIBC_TUNABLES", None):  # read where a process starts
        os.execv(sys.executable, [sys.executable, *sys.argv])


def no_pass_for_old_log_probabilities() -> None:
    """A forward pass over the whole rollout before the first update."""

    def add_logprobs(learner: Any, rows: Sequence[Any], *_: Any) -> None:
        for row, logp_T in zip(rows, learner.logprobs([row.tokens for row in rows]), strict=True):
            row.old_logp = logp_T

    grpo_chainforge.add_logprobs = add_logprobs


def fused_optimizer() -> None:
    """AdamW one operation after the other."""
    make = ScheduledOptimizer.__init__

    def unfused(self: ScheduledOptimizer, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["fused"] = group["foreach"] = False

    ScheduledOptimizer.__init__ = unfused


def prompts_once_in_the_sampler() -> None:
    """Every completion's prompt is prefilled."""
    sample = sampler.sample

    def one_by_one(model: Any, requests: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        single = [replace(r, seeds=[seed]) for r in requests for seed in r.seeds]
        found = iter(sample(model, single, *args, **kwargs))
        return [[next(found)[0] for _ in r.seeds] for r in requests]

    local_engine.sample = one_by_one


def finished_rows_dropped() -> None:
    """Rows are decoded until the last of them has ended."""
    decode_batch.TURNOVER = 1.0


def waiting_prompts_let_in() -> None:
    """What waits comes in when the whole batch has ended."""
    fitting = sampler._that_fit
    sampler._that_fit = lambda waiting, rows: fitting(waiting, rows) if rows >= ROWS_AT_ONCE else []


def cache_in_chunks() -> None:
    """The cache is moved to a larger one for each token."""
    cache.CHUNK["cpu"] = 1


def attention_of_one_query() -> None:
    """PyTorch's fused attention in decoding."""

    def fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scaling, enable_gqa=True
        ).transpose(1, 2)

    attention.attend_once = fused


def decoder_of_few_operations() -> None:
    """transformers' decoder, with our attention."""
    decoder.is_known = lambda _: False


def products_together_in_decoding() -> None:
    """A product for each of queries, keys, values, gate and up."""
    decode_batch.merge = lambda _: None


def weights_cast_once() -> None:
    """Weights are cast in each micro-batch."""
    usual = forward_passes.mixed_precision
    local_learner.mixed_precision = lambda *where, **_: usual(*where, keep_casts=False)


def huge_pages() -> None:
    """Every 4 KB of a tensor is a page of its own."""
    os.environ["THP_MEM_ALLOC_ENABLE"] = "0"


def one_gradient_of_the_vocabulary() -> None:
    """The head's gradient and the input embedding's are made whole in each micro-batch, and added up."""
    local_learner.LARGE = 2**60


def new_tensors_left_unfilled() -> None:
    """PyTorch's deterministic mode as it is: every new tensor is written twice."""
    start = grpo_chainforge.start_torch

    def filled(*args: Any) -> torch.device:
        device = start(*args)
        torch.utils.deterministic.fill_uninitialized_memory = True
        return device

    grpo_chainforge.start_torch = filled


def one_pass_over_the_vocabulary() -> None:
    """Probabilities and their running sum in float64, over the whole vocabulary."""

    def draw(
        logits_BV: Tensor, uniform_B: Tensor, *, temperature: float, top_p: float, top_k: int
    ) -> tuple[Tensor, Tensor]:
        logp_BV = (logits_BV.float() / temperature).log_softmax(-1)
        upto_BV = truncate(logp_BV.exp(), top_p=top_p, top_k=top_k).double().cumsum(-1)
        token_B1 = torch.searchsorted(upto_BV, uniform_B[:, None] * upto_BV[:, -1:], right=True)
        return token_B1.squeeze(-1), logp_BV.gather(-1, token_B1).squeeze(-1)

    completions.draw = draw


TECHNIQUES: dict[str, Callable[[], None]] = {
    take_away.__name__.replace("_", "-"): take_away
    for take_away in (
        prompts_once_in_the_sampler,
        cache_in_chunks,
        attention_of_one_query,
        products_together_in_decoding,
        one_pass_over_the_vocabulary,
        finished_rows_dropped,
        waiting_prompts_let_in,
        no_pass_for_old_log_probabilities,
        prompts_once_in_training,
        micro_batches_by_padding,
        small_micro_batches,
        head_in_chunks,
        decoder_of_few_operations,
        attention_for_short_rows,
        weights_cast_once,
        freed_memory_used_again,
        huge_pages,
        one_gradient_of_the_vocabulary,
        new_tensors_left_unfilled,
        fused_optimizer,
    )
}
