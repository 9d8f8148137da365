"""Drawing tokens: B rows, V vocabulary, K blocks of it. One uniform number per row and token decides."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

BLOCK = 128  # tokens that are added up before one of their blocks is looked into
BELOW_ONE = 1 - 2**-40
NO_FLOAT64 = {"mps"}  # devices that cannot compute in it


def uniforms(seed: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """`count` numbers in [0, 1) that depend on the seed alone (Philox, doi 10.1145/2063384.2063405)."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


def draw(
    logits_BV: Tensor, uniform_B: Tensor, *, temperature: float, top_p: float, top_k: int
) -> tuple[Tensor, Tensor]:
    """(token_B, logp_B) by inverting the cumulative distribution; temperature 0 takes the likeliest.

    `logp_B` is in nats under logits / temperature, before top-k and top-p; temperature 0 counts as 1. The
    logits are used up: with a large vocabulary every pass over them counts.
    """
    greedy_B = logits_BV.argmax(-1) if temperature == 0 else None
    weight_BV = logits_BV.float()
    weight_BV.sub_(weight_BV.amax(-1, keepdim=True))
    if temperature not in (0, 1):
        weight_BV.div_(temperature)
    weight_BV.exp_()
    block_BK = block_sums(weight_BV)
    total_B = block_BK.sum(-1)
    token_B = greedy_B
    if token_B is None:
        kept_BV = truncate(weight_BV, top_p=top_p, top_k=top_k)
        token_B = invert(kept_BV, block_BK if kept_BV is weight_BV else block_sums(kept_BV), uniform_B)
    share_B = weight_BV.gather(-1, token_B[:, None]).squeeze(-1).to(total_B.device) / total_B
    return token_B, share_B.log().float().to(weight_BV.device)


def block_sums(weight_BV: Tensor) -> Tensor:
    """block_BK in float64: what each BLOCK of the vocabulary adds up to; the last may be shorter."""
    whole = weight_BV.shape[-1] // BLOCK * BLOCK
    parts = [weight_BV[:, :whole].unflatten(-1, (-1, BLOCK)).sum(-1)] if whole else []
    if whole < weight_BV.shape[-1]:
        parts.append(weight_BV[:, whole:].sum(-1, keepdim=True))
    return exact(torch.cat(parts, -1))


def invert(weight_BV: Tensor, block_BK: Tensor, uniform_B: Tensor) -> Tensor:
    """token_B: the one in whose share of the cumulative weights the uniform number lies.

    The block is looked for first, then the token in it, both in float64: one pass over a few blocks instead
    of one over the vocabulary.
    """
    device = weight_BV.device
    upto_BK = block_BK.cumsum(-1)
    wanted_B1 = uniform_B[:, None].clamp(max=BELOW_ONE) * upto_BK[:, -1:]
    chosen_B1 = torch.searchsorted(upto_BK, wanted_B1, right=True)
    size_B1 = block_BK.gather(-1, chosen_B1)
    inside_B1 = (wanted_B1 - (upto_BK.gather(-1, chosen_B1) - size_B1)) / size_B1
    place_BC = chosen_B1.to(device) * BLOCK + torch.arange(BLOCK, device=device)
    last = weight_BV.shape[-1] - 1
    within_BC = exact(weight_BV.gather(-1, place_BC.clamp(max=last)).masked_fill(place_BC > last, 0.0))
    upto_BC = within_BC.cumsum(-1)
    rest_B1 = inside_B1.clamp(0, BELOW_ONE) * upto_BC[:, -1:]
    return (chosen_B1 * BLOCK + torch.searchsorted(upto_BC, rest_B1, right=True)).squeeze(-1).to(device)


def exact(x: Tensor) -> Tensor:
    """In float64; on the CPU where the device has none."""
    return x.to(exact_device(x.device)).double()


def exact_device(device: torch.device) -> torch.device:
    """Where numbers that begin on this device are computed in float64."""
    return torch.device("cpu") if device.type in NO_FLOAT64 else device


def truncate(weight_BV: Tensor, *, top_p: float, top_k: int) -> Tensor:
    """Zero what is outside the k likeliest tokens and outside the nucleus (arXiv 1904.09751)."""
    if top_k and top_k < weight_BV.shape[-1]:
        least_B1 = weight_BV.topk(top_k, dim=-1).values[:, -1:]
        weight_BV = weight_BV.where(weight_BV >= least_B1, 0.0)
    if top_p < 1:
        sorted_BV, order_BV = weight_BV.sort(dim=-1, descending=True, stable=True)
        total_B1 = sorted_BV.sum(-1, keepdim=True)
        before_BV = sorted_BV.cumsum(-1) - sorted_BV  # the likeliest token always stays
        outside_BV = before_BV >= top_p * total_B1
        weight_BV = weight_BV.masked_fill(outside_BV.scatter(-1, order_BV, outside_BV), 0.0)
    return weight_BV


def uniform_table(seeds: Sequence[int], count: int, device: torch.device) -> Tensor:
    """uniform_BT in float64: a row per sequence, a column per token."""
    table = np.stack([uniforms(seed, count) for seed in seeds])
    return torch.from_numpy(table).to(exact_device(device))
