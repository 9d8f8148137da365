"""Sample completions in batches: prefill each prompt once for its group, decode, drop finished rows.

R requests, B rows (sequences being decoded), P prompt width, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from chainforge.config.sampling import SamplingSettings
from chainforge.records import Finish
from chainforge.rollout.cache import PreallocatedCache, left_padded_mask
from chainforge.rollout.decode_attention import decoding
from chainforge.rollout.draw import draw, uniform_table

COMPACT_SHARE = 0.125  # finished rows are dropped when they are this share of the batch


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt as token ids, and one seed per completion wanted."""

    prompt_ids: Sequence[int]
    seeds: Sequence[int]


@dataclass(frozen=True, slots=True)
class Sampled:
    """One completion: token ids with the EOS token if it stopped, log-probabilities, and how it ended."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    requests: Sequence[Request],
    settings: SamplingSettings,
    *,
    eos_id: int,
    max_rows: int,
) -> list[list[Sampled]]:
    """One list of completions per request, in the order of its seeds.

    A completion depends on its prompt, its seed and the weights, not on what else is in the batch or in
    which order (but for rounding: a float32 difference in the logits of about 1e-6).
    """
    results: list[list[Sampled]] = [[] for _ in requests]
    with decoding(model):
        for indices in _chunks(requests, max_rows):
            chunk = [requests[i] for i in indices]
            for index, completions in zip(indices, _decode(model, chunk, settings, eos_id), strict=True):
                results[index].extend(completions)
    return results


def _chunks(requests: Sequence[Request], max_rows: int) -> Iterator[list[int]]:
    """Request numbers in batches of at most `max_rows` sequences, prompts of like length together."""
    chunk: list[int] = []
    rows = 0
    for index in sorted(range(len(requests)), key=lambda i: (len(requests[i].prompt_ids), i)):
        wanted = len(requests[index].seeds)
        if chunk and rows + wanted > max_rows:
            yield chunk
            chunk, rows = [], 0
        chunk.append(index)
        rows += wanted
    if chunk:
        yield chunk


def _decode(
    model: PreTrainedModel, requests: Sequence[Request], settings: SamplingSettings, eos_id: int
) -> list[list[Sampled]]:
    """Decode one batch. `alive_B` maps the rows still running to their place in the result."""
    limit, device = settings.max_new_tokens, model.device
    uniform_BT = uniform_table([seed for r in requests for seed in r.seeds], limit, device)
    logits_BV, cache, is_token_BL, position_B = _prefill(model, requests, limit)
    rows = len(uniform_BT)
    tokens_BT = torch.zeros(rows, limit, dtype=torch.long, device=device)
    logp_BT = torch.zeros(rows, limit, device=device)
    length_B = torch.full((rows,), limit, device=device)
    alive_B = torch.arange(rows, device=device)
    running_B = torch.ones(rows, dtype=torch.bool, device=device)
    width = is_token_BL.shape[1] - limit

    for step in range(limit):
        token_B, logp_B = draw(
            logits_BV,
            uniform_BT[alive_B, step],
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
        )
        tokens_BT[alive_B, step], logp_BT[alive_B, step] = token_B, logp_B
        ended_B = running_B & (token_B == eos_id)
        length_B[alive_B[ended_B]] = step + 1
        running_B &= ~ended_B
        finished = int((~running_B).sum())
        if finished == len(running_B) or step == limit - 1:
            break
        if finished >= COMPACT_SHARE * len(running_B):
            keep = cache.keep_rows(running_B)
            alive_B, token_B, running_B = alive_B[keep], token_B[keep], running_B[keep]
            is_token_BL, position_B = is_token_BL[keep], position_B[keep]
        logits_BV = _next_logits(model, token_B, position_B + step, is_token_BL[:, : width + step + 1], cache)
    return _collect(requests, tokens_BT, logp_BT, length_B, eos_id)


def _prefill(
    model: PreTrainedModel, requests: Sequence[Request], limit: int
) -> tuple[Tensor, PreallocatedCache, Tensor, Tensor]:
    """(logits_BV, cache, is_token_BL, position_B): every prompt once, then repeated for its completions."""
    device = model.device
    width = max(len(r.prompt_ids) for r in requests)
    tokens_RP = torch.zeros(len(requests), width, dtype=torch.long)
    is_token_RL = torch.ones(len(requests), width + limit, dtype=torch.bool)
    for row, request in enumerate(requests):
        tokens_RP[row, width - len(request.prompt_ids) :] = torch.tensor(list(request.prompt_ids))
        is_token_RL[row, : width - len(request.prompt_ids)] = False
    tokens_RP, is_token_RL = tokens_RP.to(device), is_token_RL.to(device)
    cache = PreallocatedCache(model.config.num_hidden_layers, width + limit)
    is_prompt_RP = is_token_RL[:, :width]
    hidden_RPH = model.get_decoder()(
        input_ids=tokens_RP,
        attention_mask=left_padded_mask(is_prompt_RP),
        position_ids=(is_prompt_RP.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    logits_RV = model.get_output_embeddings()(hidden_RPH[:, -1])
    counts = torch.tensor([len(r.seeds) for r in requests], device=device)
    row_of_B = torch.arange(len(requests), device=device).repeat_interleave(counts)
    cache.take_rows(row_of_B)
    return logits_RV[row_of_B], cache, is_token_RL[row_of_B], is_prompt_RP.sum(-1)[row_of_B]


def _next_logits(
    model: PreTrainedModel, token_B: Tensor, position_B: Tensor, is_token_BL: Tensor, cache: PreallocatedCache
) -> Tensor:
    hidden_B1H = model.get_decoder()(
        input_ids=token_B[:, None],
        attention_mask=is_token_BL[:, None, None, :],
        position_ids=position_B[:, None],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    logits_BV: Tensor = model.get_output_embeddings()(hidden_B1H[:, -1])
    return logits_BV


def _collect(
    requests: Sequence[Request], tokens_BT: Tensor, logp_BT: Tensor, length_B: Tensor, eos_id: int
) -> list[list[Sampled]]:
    rows = iter(zip(tokens_BT.tolist(), logp_BT.tolist(), length_B.tolist(), strict=True))
    results = []
    for request in requests:
        completions = []
        for _ in request.seeds:
            tokens, logps, length = next(rows)
            finish: Finish = "stop" if tokens[length - 1] == eos_id else "length"
            completions.append(Sampled(tuple(tokens[:length]), tuple(logps[:length]), finish))
        results.append(completions)
    return results
