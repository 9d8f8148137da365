"""Sequences of different lengths to padded tensors, and to micro-batches of bounded size.

B sequences, S whole length, T completion length. Right padding: under causal attention no real token
sees it, so it needs no attention mask and changes no result.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_PADDING = 1 / 8  # of a micro-batch: on a CPU, about what the fixed costs of one more are worth


@dataclass(frozen=True, slots=True)
class Tokens:
    """A prompt and its completion as token ids."""

    prompt: Sequence[int]
    completion: Sequence[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True, slots=True)
class Batch:
    """`tokens_BS` right-padded; `target_BS` marks completion tokens; `mask_BT` is the same, left-aligned.

    `hidden_before` is set where the prompts are computed apart, and the rows are completions only: it takes
    tokens_BT to hidden_BTH, the last hidden state before each of them.
    """

    tokens_BS: Tensor
    target_BS: Tensor
    mask_BT: Tensor
    hidden_before: Callable[[Tensor], Tensor] | None = None


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


def micro_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices of all sequences, alike lengths together, at most `max_tokens` each with padding counted.

    A micro-batch ends early where its padding would pass a share of that: with lengths as uneven as those of
    sampled completions, filling it up would compute more padding than tokens. A single sequence longer than
    `max_tokens` gets a micro-batch of its own.
    """
    batch: list[int] = []
    padding = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch:
            longest = lengths[batch[0]]
            padding += longest - lengths[index]
            if (len(batch) + 1) * longest > max_tokens or padding > max_tokens * MOST_PADDING:
                yield batch
                batch, padding = [], 0
        batch.append(index)
    if batch:
        yield batch


def pad_rows(rows: Sequence[Sequence[float]], width: int, device: torch.device) -> Tensor:
    """Rows of numbers to a right-padded float tensor [len(rows), width]; padding is 0."""
    padded = torch.zeros(len(rows), width)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(list(row))
    return padded.to(device)
