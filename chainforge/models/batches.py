"""Sequences of different lengths to padded tensors, and to micro-batches of bounded size.

B sequences, S whole length, T completion length. Right padding: under causal attention no real token
sees it, so it needs no attention mask and changes no result.
"""

from collections.abc import Iterator, Sequence
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
class Batch:
    """`tokens_BS` right-padded; `target_BS` marks completion tokens; `mask_BT` is the same, left-aligned."""

    tokens_BS: Tensor
    target_BS: Tensor
    mask_BT: Tensor


def collate(sequences: Sequence[Tokens], device: torch.device) -> Batch:
    """One padded batch. The padding token is 0: nothing ever looks at it."""
    length = max(map(len, sequences))
    width = max(len(s.completion) for s in sequences)
    tokens_BS = torch.zeros(len(sequences), length, dtype=torch.long)
    target_BS = torch.zeros(len(sequences), length, dtype=torch.bool)
    mask_BT = torch.zeros(len(sequences), width, dtype=torch.bool)
    for row, s in enumerate(sequences):
        tokens_BS[row, : len(s)] = torch.tensor([*s.prompt, *s.completion])
        target_BS[row, len(s.prompt) : len(s)] = True
        mask_BT[row, : len(s.completion)] = True
    return Batch(tokens_BS.to(device), target_BS.to(device), mask_BT.to(device))


def micro_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices of all sequences, alike lengths together, at most `max_tokens` each with padding counted.

    A single sequence longer than that gets a micro-batch of its own.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def pad_rows(rows: Sequence[Sequence[float]], width: int, device: torch.device) -> Tensor:
    """Rows of numbers to a right-padded float tensor [len(rows), width]; padding is 0."""
    padded = torch.zeros(len(rows), width)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(list(row))
    return padded.to(device)
