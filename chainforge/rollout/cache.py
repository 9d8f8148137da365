"""A key-value cache that is allocated once: decoding writes in place and never concatenates.

B rows in use, R rows of another cache. Every row ends at the same column; one that began later begins further
right. So a token is written as one slice, and a new row is put in with its last token in the last column.
"""

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class PreallocatedLayer(CacheLayerMixin):
    """One layer's keys and values: [rows, heads, capacity, head size], in use from `begin` to `end`.

    On a CPU, positions lie next to each other in memory and a key's components far apart, as the product of
    one query with all keys reads them.
    """

    is_sliding = False

    def __init__(self, rows: int, capacity: int, end: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most_rows, self.capacity = rows, capacity
        self.rows = 0
        self.begin = self.end = end

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take heads, sizes and type from the first keys."""
        _, heads, _, size = key_states.shape
        if key_states.device.type == "cpu":
            self.keys = key_states.new_zeros(self.most_rows, heads, size, self.capacity).transpose(-1, -2)
        else:
            self.keys = key_states.new_zeros(self.most_rows, heads, self.capacity, size)
        self.values = value_states.new_zeros(self.most_rows, heads, self.capacity, value_states.shape[-1])
        self.is_initialized = True

    @property
    def _storage(self) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the new states after the old ones; return views of all that is in use."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.rows, start = len(key_states), self.end
        self.end += key_states.shape[-2]
        keys, values = self._storage
        keys[: self.rows, :, start : self.end] = key_states
        values[: self.rows, :, start : self.end] = value_states
        return keys[: self.rows, :, self.begin : self.end], values[: self.rows, :, self.begin : self.end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset that a mask over this cache has."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.end - self.begin

    def get_max_length(self) -> int:
        """Positions there is room for."""
        return self.capacity

    get_max_cache_shape = get_max_length  # the name in transformers before 5.20

    def append(self, other: "PreallocatedLayer", row_of_B: Tensor) -> None:
        """Put these rows of another layer behind those in use; a row may be put in several times."""
        if not self.is_initialized:
            self.lazy_initialization(*other._storage)
        rows, width = self.rows + len(row_of_B), other.get_seq_length()
        for ours, theirs in zip(self._storage, other._storage, strict=True):
            ours[self.rows : rows, :, self.end - width : self.end] = theirs[row_of_B]
        self.rows = rows

    def close_gaps(self, gaps: Tensor, movers: Tensor, count: int) -> None:
        """Keep `count` rows: those behind them that are still needed move into the gaps."""
        for states in self._storage:
            states[gaps, :, self.begin : self.end] = states[movers, :, self.begin : self.end]
        self.rows = count

    def shift(self, columns: int) -> None:
        """Move what is in use so many columns to the left."""
        begin, end = self.begin - columns, self.end - columns
        for states in self._storage:
            states[: self.rows, :, begin:end] = states[: self.rows, :, self.begin : self.end].clone()
        self.begin, self.end = begin, end


class PreallocatedCache(Cache):
    """All layers. The first token is written to column `end`; shorter prompts leave columns before theirs."""

    def __init__(self, layers: int, *, rows: int, capacity: int, end: int = 0) -> None:
        self._filled = [PreallocatedLayer(rows, capacity, end) for _ in range(layers)]
        super().__init__(layers=list(self._filled))

    @property
    def columns(self) -> tuple[int, int]:
        """(first in use, next to be written)."""
        return self._filled[0].begin, self._filled[0].end

    @property
    def is_full(self) -> bool:
        """Whether there is no column left."""
        return self._filled[0].end == self._filled[0].capacity

    def append(self, other: "PreallocatedCache", row_of_B: Tensor) -> None:
        """Put these rows of another cache behind those in use; their last columns become this one's last."""
        for ours, theirs in zip(self._filled, other._filled, strict=True):
            ours.append(theirs, row_of_B)

    def keep_rows(self, wanted_B: Tensor) -> Tensor:
        """Keep the rows that are wanted, and say in which order: only the last ones move, into the gaps."""
        count = int(wanted_B.sum())
        gaps = (~wanted_B[:count]).nonzero().squeeze(-1)
        movers = wanted_B[count:].nonzero().squeeze(-1) + count
        for layer in self._filled:
            layer.close_gaps(gaps, movers, count)
        order_B = torch.arange(count, device=wanted_B.device)
        order_B[gaps] = movers
        return order_B

    def use_from(self, column: int) -> None:
        """No row needs anything before this column."""
        for layer in self._filled:
            layer.begin = column

    def shift(self, columns: int) -> None:
        """Make room for so many columns at the right end, by columns that are unused on the left."""
        for layer in self._filled:
            layer.shift(columns)


def left_padded_mask(is_token_NP: Tensor) -> Tensor:
    """mask_N1PP for a prefill with left padding: causal, on real tokens; padding sees only itself."""
    width = is_token_NP.shape[1]
    square = torch.ones(width, width, dtype=torch.bool, device=is_token_NP.device)
    return (
        (square.tril() & is_token_NP[:, None]) | torch.eye(width, dtype=torch.bool, device=square.device)
    )[:, None]
