"""Decoding a block of tokens in fixed shapes, without a look at the device in between.

A GPU that has to tell the host after each token who has ended is idle half of the time. Here all of a step's
tensors stay where they are, so that a CUDA graph can replay it (https://docs.pytorch.org/docs/stable/notes/cuda.html).
B rows in use, R rows that are computed, W columns of the cache, V vocabulary.
"""

import weakref
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from chainforge.rollout.cache import PaddedLayer, chunks
from chainforge.rollout.completions import Completions
from chainforge.rollout.cuda_graph import captured
from chainforge.rollout.decode_batch import DecodeBatch

FEWEST_ROWS = 8  # fewer take a GPU as long


class BlockBatch(DecodeBatch):
    """A `DecodeBatch` that looks only after `block` tokens which rows have ended.

    It computes a power of two of rows. Those that are not in use, and those that ended inside the block, are
    idle: they belong to no completion, and see nothing but the token that they write.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        completions: Completions,
        rows: int,
        prompt_width: int,
        *,
        block: int,
    ) -> None:
        super().__init__(model, completions, rows, prompt_width)
        self._most_rows, self._block = rows, block
        self._most_columns = chunks(prompt_width + completions.limit + block, self._device.type)
        self._steps: dict[int, _Step] = {}  # by their rows

    def decode(self) -> None:
        """Decode a block of tokens for each row, and drop those that ended."""
        rows, limit = len(self), self._completions.limit
        count = min(self._block, limit - int(self.taken_B.min()))
        self._make_room_for(count)
        step = self._step_of(rows)
        step.load(self.number_B, self.taken_B, self._start_B, self.logits_BV, self._cache.end)
        for _ in range(count):
            step.run()
        self._cache.skip(count)
        self.taken_B, self.logits_BV = step.taken_R[:rows].clone(), step.logits_RV[:rows]
        self.running_B = step.number_R[:rows] != self._completions.nobody
        if not self.running_B.all():
            self.logits_BV = self.logits_BV[self.keep(self.running_B)]

    def _make_room_for(self, count: int) -> None:
        """Have room for as many columns. The width doubles, up to what the longest row needs: then it stays,
        and with it the storage that a graph knows."""
        end, width = self._cache.end, self._cache.width
        if end + count <= width:
            return
        columns = max(end - int(self._start_B.min()), self._prompt_width)
        while width < columns + self._block:
            width = min(2 * width, self._most_columns)
        if width == self._cache.width:
            self._cache.shift(columns)
        else:
            self._steps.clear()
            self._cache.widen(columns, width)
        self._start_B = self._start_B - (end - columns)

    def _step_of(self, rows: int) -> "_Step":
        wanted = min(self._most_rows, max(FEWEST_ROWS, 1 << (rows - 1).bit_length()))
        if wanted not in self._steps:
            self._cache.clear_rows_from(rows)  # idle rows compute with what is there
            self._steps[wanted] = _Step(self, wanted)
        return self._steps[wanted]


class _Step:
    """One token for each of R rows. `run` it as often as wanted after a `load`."""

    def __init__(self, batch: BlockBatch, rows: int) -> None:
        # No cycle: a cache of gigabytes would stay until some garbage collection, beside the learner's pass.
        self._batch, self._completions = weakref.proxy(batch), batch._completions
        device, logits_BV = batch._device, batch.logits_BV
        self.number_R, self.taken_R, self._start_R = torch.zeros(3, rows, dtype=torch.long, device=device)
        self.logits_RV = logits_BV.new_zeros(rows, logits_BV.shape[-1])
        self._column_1 = torch.zeros(1, dtype=torch.long, device=device)
        layers = [FixedLayer(layer, rows, self._column_1) for layer in batch._cache.filled]
        self._cache, self._last = Cache(layers=list(layers)), batch._cache.width - 1
        self._rest(batch._cache.end)
        run = captured(self._decode, device)
        self._replay = None if run == self._decode else run

    def run(self) -> None:
        """Decode one token of each row."""
        (self._replay or self._decode)()

    def _rest(self, column: int) -> None:
        """Every row is idle, and the next token goes to this column."""
        self.number_R.fill_(self._completions.nobody)
        self.taken_R.zero_()
        self._column_1.fill_(column)

    def load(
        self, number_B: Tensor, taken_B: Tensor, start_B: Tensor, logits_BV: Tensor, column: int
    ) -> None:
        """Begin with these rows, whose next token goes to this column."""
        self._rest(column)
        for ours, theirs in (
            (self.number_R, number_B),
            (self.taken_R, taken_B),
            (self._start_R, start_B),
            (self.logits_RV, logits_BV),
        ):
            ours[: len(theirs)].copy_(theirs)

    def _decode(self) -> None:
        nobody, limit = self._completions.nobody, self._completions.limit
        token_R, stopped_R = self._completions.extend(self.logits_RV, self.number_R, self.taken_R)
        self.number_R.masked_fill_(stopped_R | (self.taken_R == limit - 1), nobody)
        self.taken_R.add_(1).clamp_(max=limit - 1)
        start_R = torch.where(self.number_R == nobody, self._column_1, self._start_R)
        self.logits_RV.copy_(self._batch.next_logits(token_R, start_R, self._column_1, self._cache))
        self._column_1.add_(1).clamp_(max=self._last)


class FixedLayer(PaddedLayer):
    """The first rows of another layer's storage, written at the column that a tensor names."""

    def __init__(self, layer: PaddedLayer, rows: int, column_1: Tensor) -> None:
        super().__init__(rows, layer.width, layer.end)
        assert layer.keys is not None
        assert layer.values is not None
        self.keys, self.values = layer.keys[:rows], layer.values[:rows]
        self.is_initialized, self._column_1 = True, column_1

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one token's states; return all columns."""
        keys, values = self._storage
        return keys.index_copy_(2, self._column_1, key_states), values.index_copy_(
            2, self._column_1, value_states
        )
