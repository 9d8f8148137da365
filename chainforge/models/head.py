"""The LM head fused with log-softmax: no tensor as large as tokens × vocabulary, forward or backward.

M tokens, H hidden size, V vocabulary, W columns of the vocabulary at a time. Logits are made W columns at a
time, used while they are in the processor's cache, and made again in the backward pass: one matrix product
more, but nothing to keep, and no pass over main memory.
Source: the running sum is that of online softmax, arXiv 1805.02867; recomputing is cut cross-entropy's,
arXiv 2411.09009, in plain PyTorch.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

# Logits at once. On the CPU 4 MB of them: they stay in its cache.
CHUNK_ELEMENTS = {"cpu": 2**20}
CHUNK_ELEMENTS_ELSEWHERE = 2**26


def token_logprobs(
    head: torch.nn.Linear,
    hidden_MH: Tensor,
    targets_M: Tensor,
    *,
    temperature: float,
    entropy: bool,
    gradient_VH: Tensor | None = None,
    scale: float = 1.0,
    cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """(logp_M, entropy_M) of the targets under logits / temperature, in nats and float32.

    The logits are scale · head(hidden); with a `cap`, cap · tanh of that / cap.

    Matrix products are in the precision that autocast asks for, everything else in float32. The entropy has
    no gradient, and is empty where it is not wanted. Where `gradient_VH` is given, the weight's gradient is
    added to it, and is no part of the graph: autograd would make another, as large, and add it up.
    """
    device = hidden_MH.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype
    # What is linear in the logits is done to the smaller hidden states; what follows a tanh is its height.
    divisor, height = (temperature / scale, None) if cap is None else (cap / scale, cap / temperature)
    scaled_MH = hidden_MH if divisor == 1 else hidden_MH / divisor
    bias_V = head.bias if divisor == 1 or head.bias is None else head.bias / divisor
    return _TokenLogprobs.apply(  # type: ignore[no-any-return,no-untyped-call]
        scaled_MH, head.weight, bias_V, targets_M, dtype, entropy, gradient_VH, height
    )


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_MH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        targets_M: Tensor,
        dtype: torch.dtype,
        entropy: bool,
        gradient_VH: Tensor | None,
        height: float | None,
    ) -> tuple[Tensor, Tensor]:
        cast_MH = hidden_MH.to(dtype)
        total_M = torch.full(targets_M.shape, -torch.inf, device=hidden_MH.device)  # log of the sum so far
        target_M, mean_M = torch.zeros_like(total_M), torch.zeros_like(total_M if entropy else total_M[:0])
        for start, end in _columns(len(targets_M), weight_VH):
            logits_MW = _logits(cast_MH, weight_VH[start:end], bias_V, start, height)
            highest_M1 = logits_MW.amax(-1, keepdim=True)
            shifted_MW = logits_MW.sub_(highest_M1)
            index_M1, inside_M1 = _where(targets_M, start, end)
            found_M1 = shifted_MW.gather(-1, index_M1) + highest_M1
            target_M = torch.where(inside_M1, found_M1, target_M[:, None])[:, 0]
            power_MW = shifted_MW.exp() if entropy else shifted_MW.exp_()
            sum_M = power_MW.sum(-1)
            piece_M = sum_M.log() + highest_M1[:, 0]
            grown_M = torch.logaddexp(total_M, piece_M)
            if entropy:  # the mean logit: that of the columns so far and of these, by their probabilities
                piece_mean_M = power_MW.mul_(shifted_MW).sum(-1) / sum_M + highest_M1[:, 0]
                mean_M = mean_M * (total_M - grown_M).exp() + piece_mean_M * (piece_M - grown_M).exp()
            total_M = grown_M
        ctx.save_for_backward(hidden_MH, weight_VH, bias_V, targets_M, total_M)
        ctx.dtype, ctx.gradient_VH, ctx.height = dtype, gradient_VH, height
        entropy_M = total_M - mean_M if entropy else mean_M
        ctx.mark_non_differentiable(entropy_M)
        return target_M - total_M, entropy_M

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden_MH, weight_VH, bias_V, targets_M, total_M = ctx.saved_tensors
        minus_M1 = -upstream[0][:, None]
        cast_MH, weighted_MH = hidden_MH.to(ctx.dtype), (minus_M1 * hidden_MH).to(ctx.dtype)
        wants_weight, wants_bias = ctx.needs_input_grad[1:3]
        grad_MH = torch.zeros(hidden_MH.shape, device=hidden_MH.device)
        grad_VH = torch.zeros_like(weight_VH) if wants_weight and ctx.gradient_VH is None else None
        into_VH = grad_VH if ctx.gradient_VH is None else ctx.gradient_VH
        grad_V = torch.empty_like(bias_V) if wants_bias else None
        for start, end in _columns(len(targets_M), weight_VH):
            weight_WH = weight_VH[start:end].to(ctx.dtype)
            logits_MW = _logits(cast_MH, weight_WH, bias_V, start, ctx.height)
            slope_MW = None if ctx.height is None else ctx.height - logits_MW.square() / ctx.height
            error_MW = logits_MW.sub_(total_M[:, None]).exp_()  # probabilities, less 1 at the target
            index_M1, inside_M1 = _where(targets_M, start, end)
            error_MW.scatter_(-1, index_M1, error_MW.gather(-1, index_M1) - inside_M1.float())
            if slope_MW is not None:
                error_MW.mul_(slope_MW)
            if grad_V is not None:
                grad_V[start:end] = (minus_M1 * error_MW).sum(0)
            error_MW = error_MW.to(ctx.dtype)
            grad_MH += error_MW @ weight_WH
            if into_VH is not None:
                into_VH[start:end] += error_MW.T @ weighted_MH
        return grad_MH.mul_(minus_M1).to(hidden_MH.dtype), grad_VH, grad_V, *[None] * 5


def _columns(tokens: int, weight_VH: Tensor) -> Iterator[tuple[int, int]]:
    """(start, end) of the columns of the vocabulary that are computed at once."""
    width = CHUNK_ELEMENTS.get(weight_VH.device.type, CHUNK_ELEMENTS_ELSEWHERE) // max(tokens, 1)
    width = max(1, width)
    for start in range(0, len(weight_VH), width):
        yield start, min(start + width, len(weight_VH))


def _logits(
    cast_MH: Tensor, weight_WH: Tensor, bias_V: Tensor | None, start: int, height: float | None
) -> Tensor:
    """logits_MW in float32, by a tanh of this height where there is one."""
    bias_W = None if bias_V is None else bias_V[start : start + len(weight_WH)].to(cast_MH.dtype)
    logits_MW = linear(cast_MH, weight_WH.to(cast_MH.dtype), bias_W).float()
    return logits_MW if height is None else logits_MW.tanh_().mul_(height)


def _where(targets_M: Tensor, start: int, end: int) -> tuple[Tensor, Tensor]:
    """(index_M1 within these columns, inside_M1: whether the target is one of them)."""
    local_M1 = targets_M[:, None] - start
    return local_M1.clamp(0, end - start - 1), (local_M1 >= 0) & (local_M1 < end - start)
