"""Sequences of different lengths as padded tensors.

B sequences, S whole length, T completion length, P prompt length. Right padding: under causal attention no
real token sees it, so it needs no attention mask and changes no result.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tokens:
    """A prompt and its completion as token ids."""

    prompt: Sequence[int]
    completion: Sequence[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True, slots=True)
class Prefix:
    """What was computed of the prompts of a batch's rows: last hidden states, keys and values by layer."""

    last_BH: Tensor
    states: Sequence[Tensor]  # keys, values, keys, …: [B, heads, P, head size]
    is_token_BP: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """`tokens_BS` right-padded; `target_BS` marks completion tokens; `mask_BT` is the same, left-aligned.

    With a `prefix`, the prompts were computed apart, and the rows are completions only.
    """

    tokens_BS: Tensor
    target_BS: Tensor
    mask_BT: Tensor
    prefix: Prefix | None = None


def collate(sequences: Sequence[Tokens], device: torch.device) -> Batch:
    """One padded batch. The padding token is 0: nothing ever looks at it."""
    tokens_BS, is_token_BS = pad_ids([[*s.prompt, *s.completion] for s in sequences], device)
    _, is_prompt_BP = pad_ids([s.prompt for s in sequences], device)
    _, mask_BT = pad_ids([s.completion for s in sequences], device)
    target_BS = is_token_BS.clone()
    target_BS[:, : is_prompt_BP.shape[1]] &= ~is_prompt_BP
    return Batch(tokens_BS, target_BS, mask_BT)


def pad_ids(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids to a right-padded tensor, and where there are tokens; padding is 0."""
    padded = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    is_token = torch.zeros(padded.shape, dtype=torch.bool)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row, dtype=torch.long)
        is_token[index, : len(row)] = True
    return padded.to(device), is_token.to(device)


def pad_rows(rows: Sequence[Sequence[float]], width: int, device: torch.device) -> Tensor:
    """Rows of numbers to a right-padded float tensor [len(rows), width]; padding is 0."""
    padded = torch.zeros(len(rows), width)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(list(row))
    return padded.to(device)
