"""Drawing tokens: B rows, V vocabulary. One uniform number per row and token decides."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def uniforms(seed: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """`count` numbers in [0, 1) that depend on the seed alone (Philox, doi 10.1145/2063384.2063405)."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


def draw_tokens(
    logits_BV: Tensor, uniform_B: Tensor, *, temperature: float, top_p: float, top_k: int
) -> Tensor:
    """token_B by inverting the cumulative distribution; temperature 0 takes the likeliest.

    Sums are in float64, so that the choice does not hang on the order of summation.
    """
    if temperature == 0:
        return logits_BV.argmax(-1)
    probs_BV = truncate((logits_BV.float() / temperature).softmax(-1), top_p=top_p, top_k=top_k).double()
    cumulative_BV = probs_BV.cumsum(-1)
    threshold_B1 = uniform_B[:, None] * cumulative_BV[:, -1:]
    token_B = torch.searchsorted(cumulative_BV, threshold_B1, right=True).squeeze(-1)
    return token_B.clamp(max=logits_BV.shape[-1] - 1)


def truncate(probs_BV: Tensor, *, top_p: float, top_k: int) -> Tensor:
    """Zero what is outside the k likeliest tokens and outside the nucleus (arXiv 1904.09751)."""
    if top_k and top_k < probs_BV.shape[-1]:
        least_B1 = probs_BV.topk(top_k, dim=-1).values[:, -1:]
        probs_BV = probs_BV.where(probs_BV >= least_B1, 0.0)
    if top_p < 1:
        sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
        total_B1 = sorted_BV.sum(-1, keepdim=True)
        before_BV = sorted_BV.cumsum(-1) - sorted_BV  # the likeliest token always stays
        outside_BV = before_BV >= top_p * total_B1
        probs_BV = probs_BV.masked_fill(outside_BV.gather(-1, order_BV.argsort(-1)), 0.0)
    return probs_BV


def logprob_of(logits_BV: Tensor, token_B: Tensor, *, temperature: float) -> Tensor:
    """logp_B in nats under logits / temperature, before top-k and top-p; temperature 0 counts as 1."""
    scaled_BV = logits_BV.float() / (temperature or 1.0)
    return scaled_BV.gather(-1, token_B[:, None]).squeeze(-1) - scaled_BV.logsumexp(-1)


def uniform_table(seeds: Sequence[int], count: int, device: torch.device) -> Tensor:
    """uniform_BT: a row per sequence, a column per token."""
    return torch.from_numpy(np.stack([uniforms(seed, count) for seed in seeds])).to(device)
