"""Sequences as the forward passes that compute them: what is of like length together, and prompts once."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from transformers import PreTrainedModel

from chainforge.models.batches import Batch, Tokens, collate, micro_batches
from chainforge.models.logprobs import mixed_precision
from chainforge.models.shared_prompts import SharedPrompts, can_share


def passes(
    model: PreTrainedModel,
    sequences: Sequence[Tokens],
    most_tokens: int,
    precision: str,
    *,
    share: bool = True,
) -> Iterator[tuple[list[int], Batch]]:
    """(indices, batch) of all sequences, at most `most_tokens` tokens each with padding counted.

    Where completions share their prompts these are computed apart, once. Their backward pass comes when the
    iterator goes on after its last micro-batch: so a loop over it runs each pass's own backward in its body.
    """
    if not (share and can_share(model, sequences)):
        for indices in micro_batches([len(s) for s in sequences], most_tokens):
            yield indices, collate([sequences[i] for i in indices], model.device)
        return
    for prompts, members in _by_prompt(sequences, most_tokens):
        with mixed_precision(precision, model.device):
            shared = SharedPrompts(model, prompts)
        number = {tuple(prompt): n for n, prompt in enumerate(prompts)}
        for chosen in micro_batches([len(sequences[i].completion) for i in members], most_tokens):
            indices = [members[i] for i in chosen]
            prompt_B = torch.tensor(
                [number[tuple(sequences[i].prompt)] for i in indices], device=model.device
            )
            batch = collate([Tokens((), sequences[i].completion) for i in indices], model.device)
            yield indices, replace(batch, hidden_before=partial(shared.hidden_before, prompt_B=prompt_B))
        shared.backward()


def _by_prompt(
    sequences: Sequence[Tokens], most_tokens: int
) -> Iterator[tuple[Sequence[Sequence[int]], list[int]]]:
    """(prompts, indices of the sequences that have them), as many as make a pass; like lengths together."""
    members: dict[tuple[int, ...], list[int]] = {}
    for index, sequence in enumerate(sequences):
        members.setdefault(tuple(sequence.prompt), []).append(index)
    distinct = list(members)
    for chosen in micro_batches([len(prompt) for prompt in distinct], most_tokens):
        prompts = [distinct[i] for i in chosen]
        yield prompts, [index for prompt in prompts for index in members[prompt]]
